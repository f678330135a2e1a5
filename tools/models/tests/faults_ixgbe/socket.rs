//! The bus itself fails.

use crate::common::Watchdog;
use crate::served::{Death, Dma, the_server_dies};

#[test]
fn a_server_that_hangs_up_under_traffic_is_a_card_that_was_pulled_out() {
    let _watchdog = Watchdog::new("a server that hangs up".to_owned());
    the_server_dies(Death::Ends, Dma::Shared);
    the_server_dies(Death::Ends, Dma::Message);
}

#[test]
fn a_server_that_falls_silent_under_traffic_is_given_up_in_time() {
    let _watchdog = Watchdog::new("a server that falls silent".to_owned());
    the_server_dies(Death::FallsSilent, Dma::Shared);
    the_server_dies(Death::FallsSilent, Dma::Message);
}
