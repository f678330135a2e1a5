//! Every fault there is.

use models::ixgbe::Fault;

use crate::bench::Plan;
use crate::flows;
use crate::strike::{is_dropped, is_there_before, strikes_a_running_card};

#[test]
fn every_fault_that_is_there_before_the_card_is_opened_ends_as_expected() {
    for fault in Fault::ALL {
        Plan::all().for_each(|plan| is_there_before(*fault, &plan));
    }
}

#[test]
fn every_fault_that_strikes_under_traffic_ends_as_expected() {
    for fault in Fault::ALL {
        Plan::all().for_each(|plan| strikes_a_running_card(*fault, &plan));
    }
}

#[test]
fn a_driver_that_is_dropped_under_any_fault_leaves_no_map_behind() {
    for fault in Fault::ALL {
        Plan::all().for_each(|plan| is_dropped(*fault, &plan));
    }
}

#[test]
fn frames_are_found_again_and_damaged_ones_are_not() {
    for wanted in [0, 1, 255, 256, 70_000] {
        let mut bytes = flows::flow(wanted);
        assert_eq!(flows::number(&bytes), Some(wanted));
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(flows::number(&bytes), None);
    }
    assert_eq!(flows::number(&[0; 20]), None);
}
