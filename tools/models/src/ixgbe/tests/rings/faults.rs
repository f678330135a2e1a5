use super::super::frames::UDP;
use super::super::mini::{Got, Mini, SIZE, at};
use crate::ixgbe::{Chaos, Config, Doorbells, Fault};

/// A card whose fault strikes at the next frame.
fn card(fault: Fault) -> Mini {
    let mut mini = Mini::new(Config::default());
    mini.receive_queue(0, 0);
    mini.transmit_queue(0);
    assert_eq!(mini.exchange(0, &UDP.build()).unwrap().bytes, UDP.build());
    mini.control.with(|chip, _| chip.set_fault_after(Some(fault), 0));
    mini
}

fn received(fault: Fault) -> Option<Got> {
    card(fault).exchange(0, &UDP.build())
}

#[test]
fn receive_descriptors_lie_as_they_are_named() {
    assert_eq!(received(Fault::DoneNever), None);
    assert_eq!(received(Fault::DoneAhead), None);
    assert_eq!(received(Fault::DoneEarly).unwrap().bytes[..64], [0xee; 64], "the buffer is as it was");
    assert_eq!(received(Fault::LengthBeyondBuffer).unwrap().high >> 32 & 0xffff, 2049);
    assert_eq!(received(Fault::LengthZero).unwrap().high >> 32 & 0xffff, 0);
    assert!(!received(Fault::EndOfPacketNever).unwrap().is_last());
    let garbage = received(Fault::DescriptorGarbage).unwrap();
    assert_eq!((garbage.low | 0x7ffe_0000 | 1 << 31, garbage.high), (u64::MAX, u64::MAX));
    assert_eq!(received(Fault::ReceiveErrors).unwrap().high >> 29 & 1, 1);
    assert_eq!(received(Fault::TypesReserved).unwrap().low & 0x1ffff, 0x1fffc);
}

#[test]
fn a_frame_may_arrive_at_another_queue() {
    let mut mini = card(Fault::QueueWrong);
    mini.receive_queue(1, 0);
    assert_eq!(mini.exchange(0, &UDP.build()), None);
    assert!(mini.received(1).is_some());
}

#[test]
fn transmit_queues_lie_as_they_are_named() {
    let mut hang = card(Fault::TransmitHang);
    let at = hang.send(0, &UDP.build(), 0);
    assert_eq!((hang.sent(), hang.is_done(at)), (vec![], false));

    let mut silent = card(Fault::TransmitDoneNever);
    let at = silent.send(0, &UDP.build(), 0);
    assert_eq!((silent.sent().len(), silent.is_done(at)), (1, false));

    let mut early = card(Fault::TransmitDoneEarly);
    let at = early.send(0, &UDP.build(), 0);
    assert_eq!((early.sent(), early.is_done(at)), (vec![], true));
    assert_eq!(early.sent(), [UDP.build()], "it is read after it was reported");

    let mut wild = Mini::new(Config { fault: Some(Fault::HeadWritebackWild), ..Config::default() });
    let report = wild.allocate(4);
    wild.set(at::transmit(0) + 0x38, u32::try_from(report).unwrap() | 1);
    wild.transmit_queue(0);
    for _ in 0..6 {
        wild.send(0, &UDP.build(), 0);
        wild.sent();
    }
    let head = u32::from_le_bytes(wild.read(report, 4).try_into().unwrap());
    assert!(head > SIZE, "{head}");
}

#[test]
fn an_honest_card_strikes_after_some_frames_and_is_honest_again_after_a_reset() {
    let mut mini = Mini::new(Config { fault: Some(Fault::LengthZero), ..Config::default() });
    mini.receive_queue(0, 0);
    let lengths: Vec<usize> = (0..7).map(|_| mini.exchange(0, &[0x88; 60]).unwrap().bytes.len()).collect();
    assert_eq!(lengths, [60, 60, 60, 60, 60, 0, 0]);
    mini.assert_honest();
}

#[test]
fn dma_is_refused_or_strays_and_both_are_on_record() {
    let mut refused = card(Fault::DmaRefused);
    refused.device.poll();
    refused.exchange(0, &UDP.build());
    assert!(refused.control.fault_count() > 0);

    let mut stray = card(Fault::DmaStray);
    assert_eq!(stray.exchange(0, &UDP.build()).unwrap().bytes, UDP.build(), "traffic goes on");
    assert_eq!(stray.control.faults().iter().map(|fault| fault.address).collect::<Vec<_>>(), [0xdead_d000]);
}

#[test]
fn a_card_may_be_removed_or_reset_itself_under_traffic() {
    let mut removed = card(Fault::Removed);
    removed.exchange(0, &UDP.build());
    assert_eq!(removed.get(at::receive(0)), u32::MAX);
    assert_eq!(removed.get(at::FCTRL), u32::MAX);

    let mut reset = card(Fault::ResetSpontaneous);
    reset.exchange(0, &UDP.build());
    assert_eq!((reset.get(at::FCTRL), reset.get(at::receive(0) + 0x28) & 1 << 25), (0, 0));
}

#[test]
fn a_queue_may_never_become_enabled() {
    for doorbells in [Doorbells::Trapped, Doorbells::Shared] {
        let mut mini = Mini::new(Config { fault: Some(Fault::QueueEnableNever), doorbells, ..Config::default() });
        mini.receive_queue(0, 0);
        mini.transmit_queue(0);
        mini.device.poll();
        for page in [at::receive(0), at::transmit(0)] {
            assert_eq!(mini.get(page + 0x28) & 1 << 25, 0);
        }
    }
}

#[test]
fn chaos_never_leaves_mapped_memory() {
    for seed in 0..20 {
        let mut mini = Mini::new(Config::default());
        mini.receive_queue(0, 0);
        mini.transmit_queue(0);
        mini.control.with(|chip, _| chip.set_chaos(Some(Chaos { seed, registers: 64, rings: 128 })));
        for _ in 0..100 {
            mini.device.wire_mut().incoming.push_back(UDP.build());
            mini.device.poll();
            while mini.received(0).is_some() {
                mini.post(0, 1);
            }
        }
        assert_eq!(mini.control.faults(), vec![]);
    }
}
