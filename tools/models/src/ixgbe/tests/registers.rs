//! Registers: first values, what can be written, side effects, resets.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::super::{Config, Doorbells, Fault, Kind, Module, Speed};
use super::bench::Bench;

/// Name, address, value after a reset, and what is read after all ones were written (numbers from the datasheet).
const TABLE: &[(&str, u32, u32, u32)] = &[
    ("STATUS", 0x0_0008, 0x0008_0000, 0x0008_0000),
    ("LEDCTL", 0x0_0200, 0x0502_0100, 0xffff_ffff),
    ("EIMS", 0x0_0880, 0, 0x7fff_ffff),
    ("GPIE", 0x0_0898, 0, 0xffff_ffff),
    ("IVAR 3", 0x0_090c, 0, 0xbfbf_bfbf),
    ("RXCTRL", 0x0_3000, 0, 1),
    ("RXPBSIZE 0", 0x0_3c00, 0x0008_0000, 0x000f_fc00),
    ("RXPBSIZE 1", 0x0_3c04, 0, 0x000f_fc00),
    ("FCRTH 0", 0x0_3260, 0, 0x8007_fff0),
    ("PFCTOP", 0x0_3008, 0x0001_8808, 0xffff_ffff),
    ("HLREG0", 0x0_4240, 0x0801_0403, 0xffff_ffff),
    ("MAXFRS", 0x0_4268, 0x05ee_0000, 0xffff_ffff),
    ("LINKS2", 0x0_4324, 0, 0),
    ("RTTDCS", 0x0_4900, 0x00c0_0000, 0xffff_ffff),
    ("TXPBTHRESH 0", 0x0_4950, 0x96, 0xffff_ffff),
    ("DMATXCTL", 0x0_4a80, 0x8100_0004, 0xffff_ffff),
    ("FCTRL", 0x0_5080, 0, 0x0702),
    ("VLNCTRL", 0x0_5088, 0x8100, 0xf000_ffff),
    ("RXCSUM", 0x0_5000, 0, 0x3000),
    ("MTA 127", 0x0_53fc, 0, 0xffff_ffff),
    ("DTXMXSZRQ", 0x0_8100, 0x10, 0xfff),
    ("SECTXBUFFAF", 0x0_8808, 0x250, 0x3ff),
    ("RAH 5", 0x0_a22c, 0, 0x8000_ffff),
    ("TXPBSIZE 0", 0x0_cc00, 0x0002_8000, 0x000f_fc00),
    ("EXVET", 0x0_5078, 0x8100_0000, 0xffff_ffff),
    ("SWSM", 0x1_0140, 0, 3),
    ("FWSM", 0x1_0148, 0x8000, 0x8000),
    ("GPRC", 0x0_4074, 0, 0),
    ("EICS of nothing", 0x0_0ab0, 0, 0),
];

#[test]
fn registers_start_with_their_first_values_and_keep_what_can_be_written() {
    for (name, offset, first, written) in TABLE {
        let bench = Bench::new(Config::default());
        assert_eq!(bench.load(*offset), *first, "{name} after a reset");
        bench.store(*offset, u32::MAX);
        assert_eq!(bench.load(*offset), *written, "{name} after all ones");
    }
}

#[test]
fn old_addresses_show_the_same_registers() {
    let bench = Bench::new(Config::default());
    for (old, new) in [
        (0x5400, 0xa200),
        (0x547c, 0xa27c),
        (0x5480, 0xea00),
        (0x5818, 0xec80),
        (0x5c00, 0xeb00),
        (0x5c7c, 0xeb7c),
        (0x5c80, 0xeb80),
        (0x2104, 0x1054),
        (0x223c, 0x13cc),
    ] {
        bench.store(old, 0x1234);
        assert_eq!(bench.load(new), 0x1234, "{old:#x}");
        bench.store(new, 0x4321);
        assert_eq!(bench.load(old), 0x4321, "{old:#x}");
    }
    assert!(bench.control().violations().is_empty());
}

#[test]
fn a_software_reset_clears_itself_and_takes_back_settings_but_not_the_memories() {
    let mut bench = Bench::new(Config::default());
    bench.milliseconds(30);
    assert_ne!(bench.load(0x42a4) & 1 << 30, 0);
    for offset in [0x5080, 0x5200, 0x898, 0x1028, 0xa208] {
        bench.store(offset, 0x702);
    }
    bench.store(0x0000, 1 << 26);
    assert_ne!(bench.load(0x0000) & 1 << 26, 0);
    assert_eq!(bench.load(0x2f00) & 8, 0, "DMA is not initialised yet");
    assert_eq!(bench.load(0x1_0010) & 0x300, 0x100, "the EEPROM is there and not read yet");
    bench.milliseconds(2);
    assert_eq!(bench.load(0x0000) & 1 << 26, 0);
    assert_ne!(bench.load(0x2f00) & 8, 0);
    assert_eq!(bench.load(0x1_0010) & 0x300, 0x300);
    assert_eq!([0x5080, 0x5200, 0x898, 0x1028, 0xa208].map(|offset| bench.load(offset)), [0, 0x702, 0, 0, 0]);
    assert_ne!(bench.load(0x42a4) & 1 << 30, 0, "CTRL.RST leaves the link alone");
    // CTRL.LRST does not.
    bench.store(0x0000, 1 << 3);
    assert_eq!(bench.load(0x42a4) & 1 << 30, 0);
    bench.milliseconds(30);
    assert_ne!(bench.load(0x42a4) & 1 << 30, 0);
}

#[test]
fn master_disable_shows_in_the_status() {
    let bench = Bench::new(Config::default());
    bench.store(0x0000, 1 << 2);
    assert_eq!(bench.load(0x0000), 1 << 2);
    assert_eq!(bench.load(0x0008) & 1 << 19, 0);
    let stuck = Bench::new(Config { fault: Some(Fault::MasterDisableStuck), ..Config::default() });
    stuck.store(0x0000, 1 << 2);
    assert_ne!(stuck.load(0x0008) & 1 << 19, 0);
}

#[test]
fn the_first_station_address_and_the_eeprom_agree() {
    let bench = Bench::new(Config::default());
    let Config { mac, .. } = Config::default();
    assert_eq!(bench.load(0xa200).to_le_bytes(), mac.0[..4]);
    assert_eq!(bench.load(0xa204), 0x8000_0000 | u32::from(mac.0[5]) << 8 | u32::from(mac.0[4]));
    let word = |at: u32| {
        bench.store(0x1_0014, at << 2 | 1);
        let read = bench.load(0x1_0014);
        assert_ne!(read & 2, 0);
        read >> 16
    };
    let core = word(9);
    assert_eq!(word(core + 1).to_le_bytes()[..2], mac.0[..2]);
    // The sum that drivers check: words before 3fh, and sections 3 to 14 without their lengths.
    let mut sum = (0..0x40).map(word).sum::<u32>();
    for pointer in (3..15).map(word).filter(|pointer| *pointer != 0 && *pointer != 0xffff) {
        sum += (1..=word(pointer)).map(|at| word(pointer + at)).sum::<u32>();
    }
    assert_eq!(sum & 0xffff, 0xbaba);
    // The firmware's version, which drivers of optics ask for.
    let firmware = word(0x0f);
    let patch = word(firmware + 4);
    assert!(word(patch + 7) > 5);
}

#[test]
fn reading_takes_the_semaphore_between_drivers() {
    let bench = Bench::new(Config::default());
    assert_eq!(bench.load(0x1_0140) & 1, 0);
    assert_eq!(bench.load(0x1_0140) & 1, 1);
    bench.store(0x1_0140, 3);
    assert_eq!(bench.load(0x1_0140), 3);
    bench.store(0x1_0140, 0);
    assert_eq!(bench.load(0x1_0140), 0);
    bench.store(0x1_0160, 5);
    assert_eq!(bench.load(0x1_0160), 5);
    let stuck = Bench::new(Config { fault: Some(Fault::SemaphoreStuck), ..Config::default() });
    assert_eq!(stuck.load(0x1_0140) & 1, 1);
    stuck.store(0x1_0140, 2);
    assert_eq!(stuck.load(0x1_0140) & 2, 0);
}

#[test]
fn waits_of_drivers_end() {
    let bench = Bench::new(Config::default());
    // Security paths are empty once they are stopped.
    for (control, status) in [(0x8800, 0x8804), (0x8d00, 0x8d04)] {
        assert_eq!(bench.load(status) & 1, 0);
        bench.store(control, 2);
        assert_eq!(bench.load(status) & 1, 1);
    }
    // Flow director: initialised, and commands end.
    bench.store(0xee00, 1);
    assert_eq!(bench.load(0xee00) & 8, 8);
    bench.store(0xee2c, 1);
    assert_eq!(bench.load(0xee2c) & 3, 0);
    assert_eq!(bench.load(0xee38), 8190);
}

#[test]
fn the_link_follows_settings_cable_and_module() {
    let up = |bench: &Bench| bench.load(0x42a4) & 1 << 30 != 0;
    let mut bench = Bench::new(Config::default());
    assert!(!up(&bench));
    bench.milliseconds(30);
    let links = bench.load(0x42a4);
    assert_eq!(links & 0x7000_0000, 0x7000_0000, "up at 10 Gb/s");
    assert_eq!(links & 0x80, 0, "it was down before");
    assert_eq!(bench.load(0x42a4) & 0x80, 0x80);
    // A restart of the negotiation takes the link down for a while.
    bench.store(0x42a0, bench.load(0x42a0) | 1 << 12);
    assert_eq!(bench.load(0x42a0) & 1 << 12, 0);
    assert!(!up(&bench));
    bench.milliseconds(30);
    assert!(up(&bench));
    bench.control().with(|chip, _| chip.set_link(false));
    bench.milliseconds(1);
    assert!(!up(&bench));
    // 1 Gb/s settings and a partner of 10 Gb/s do not agree; and nothing does without a module.
    let mut slow = Bench::new(Config::default());
    slow.store(0x42a0, slow.load(0x42a0) & !0xe000 | 2 << 13);
    slow.milliseconds(30);
    assert!(!up(&slow));
    // The pin that says so.
    assert_eq!(bench.load(0x20) & 4, 4);
    assert_eq!(Bench::new(Config { module: Module::Empty, ..Config::default() }).load(0x20) & 4, 0);
    for config in [
        Config { module: Module::Empty, ..Config::default() },
        Config { fault: Some(Fault::LinkNeverUp), ..Config::default() },
        Config { link_up: false, ..Config::default() },
    ] {
        let mut bench = Bench::new(config);
        bench.milliseconds(30);
        assert!(!up(&bench));
    }
}

/// Reads a register of the PHY at address 0.
fn phy(bench: &Bench, port: u32, device: u32, at: u32) -> u32 {
    bench.store(0x425c, at | device << 16 | port << 21 | 1 << 30);
    assert_eq!(bench.load(0x425c) & 1 << 30, 0);
    bench.store(0x425c, at | device << 16 | port << 21 | 3 << 26 | 1 << 30);
    bench.load(0x4260) >> 16
}

#[test]
fn copper_ports_have_a_phy_and_cages_have_none() {
    let cage = Bench::new(Config::default());
    assert_eq!(phy(&cage, 0, 1, 8), 0xffff);
    for (kind, id) in [(Kind::X540, 0x0200), (Kind::X550, 0x0223)] {
        let mut bench = Bench::new(Config { kind, speed: Speed::Gigabit, ..Config::default() });
        assert_eq!(phy(&bench, 0, 1, 8) & 0xc000, 0x8000);
        assert_eq!(phy(&bench, 3, 1, 8), 0xffff, "no other address answers");
        assert_eq!((phy(&bench, 0, 1, 2), phy(&bench, 0, 1, 3)), (0x0154, id));
        bench.milliseconds(30);
        assert_eq!(bench.load(0x42a4) & 0x7000_0000, 0x6000_0000, "up at 1 Gb/s");
        assert_eq!(phy(&bench, 0, 7, 1) & 0x24, 0x24);
        // Restart of the negotiation: 7.0 bit 9.
        bench.store(0x4260, 0x3200);
        bench.store(0x425c, 7 << 16 | 1 << 30);
        bench.store(0x425c, 7 << 16 | 1 << 26 | 1 << 30);
        assert_eq!(bench.load(0x42a4) & 1 << 30, 0);
        assert_eq!(phy(&bench, 0, 7, 0), 0x3000);
        bench.milliseconds(30);
        assert_ne!(bench.load(0x42a4) & 1 << 30, 0);
    }
}

/// Writes a register of the PHY at address 0.
fn set_phy(bench: &Bench, device: u32, at: u32, value: u32) {
    bench.store(0x4260, value);
    bench.store(0x425c, at | device << 16 | 1 << 30);
    bench.store(0x425c, at | device << 16 | 1 << 26 | 1 << 30);
}

#[test]
fn copper_links_have_the_fastest_speed_that_both_sides_offer() {
    let mut bench = Bench::new(Config { kind: Kind::X540, ..Config::default() });
    // No 10 Gb/s: 1 Gb/s remains. Neither: 100 Mb/s. Nothing: no link.
    for (at, value, speed) in [(0x20, 1, 0x6000_0000), (0xc400, 0, 0x5000_0000), (0x10, 1, 0)] {
        set_phy(&bench, 7, at, value);
        set_phy(&bench, 7, 0, 0x3200);
        bench.milliseconds(30);
        assert_eq!(bench.load(0x42a4) & 0x7000_0000, speed);
    }
}

#[test]
fn a_flapping_link_goes_down_and_up_again() {
    let mut bench = Bench::new(Config { fault: Some(Fault::LinkFlap), ..Config::default() });
    let states: Vec<bool> = (0..200)
        .map(|_| {
            bench.milliseconds(2);
            bench.load(0x42a4) & 1 << 30 != 0
        })
        .collect();
    assert!(states.windows(2).filter(|pair| pair[0] != pair[1]).count() >= 8, "{states:?}");
}

#[test]
fn a_forced_link_needs_no_cable() {
    for (kind, register) in [(Kind::X520, 0x42a0), (Kind::X540, 0x4330)] {
        let mut bench = Bench::new(Config { kind, link_up: false, ..Config::default() });
        bench.store(register, bench.load(register) | 1);
        bench.milliseconds(1);
        assert_ne!(bench.load(0x42a4) & 1 << 30, 0);
    }
}

#[test]
fn the_x550_reads_its_nvm_through_the_host_interface() {
    let bench = Bench::new(Config { kind: Kind::X550, ..Config::default() });
    assert_eq!(bench.load(0x1_5f00) & 1, 1);
    // Two words from word 15h on: addresses and lengths are in bytes, high byte first.
    for (at, value) in [0xff06_0031, 0x2a00_0000, 0x0400, 0].into_iter().enumerate() {
        bench.store(0x1_5800 + 4 * u32::try_from(at).unwrap(), value);
    }
    bench.store(0x1_5f00, 3);
    assert_eq!(bench.load(0x1_5f00), 5, "done, and the answer is valid");
    assert_eq!(bench.load(0x1_580c) & 0xffff, 0xfafa);
    assert_eq!(Bench::new(Config::default()).load(0x1_5f00), 0);
}

#[test]
fn what_breaks_a_rule_is_recorded_once() {
    let bench = Bench::new(Config::default());
    bench.store(0x3004, 1);
    bench.store(0x3004, 1);
    assert_eq!(bench.load(0x3004), 0);
    bench.store(0x8120, 3);
    let violations = bench.control().violations();
    assert_eq!(violations.len(), 3, "{violations:?}");
    assert!(violations[0].contains("wrote") && violations[1].contains("read") && violations[2].contains("MTQC"));
}

#[test]
fn counters_on_queue_pages_clear_when_the_card_sees_the_access() {
    let bench = Bench::new(Config { doorbells: Doorbells::Trapped, ..Config::default() });
    bench.control().with(|chip, _| chip.statistics.add(0x1030 + 0x40, 9));
    assert_eq!((bench.load(0x1070), bench.load(0x1070)), (9, 0));
    // QPTC at both of its addresses.
    bench.control().with(|chip, _| chip.statistics.add(0x8684, 4));
    assert_eq!((bench.load(0x6070), bench.load(0x8684)), (4, 0));
}

#[test]
fn a_removed_card_reads_all_ones() {
    let bench = Bench::new(Config { fault: Some(Fault::Absent), ..Config::default() });
    assert_eq!([0x8, 0x42a4, 0x1018].map(|offset| bench.load(offset)), [u32::MAX; 3]);
}

#[test]
fn faults_of_the_bring_up_last() {
    let with = |fault| {
        let mut bench = Bench::new(Config { fault: Some(fault), ..Config::default() });
        bench.store(0, 1 << 26);
        bench.milliseconds(20);
        bench
    };
    assert_ne!(with(Fault::ResetNeverDone).load(0) & 1 << 26, 0);
    assert_eq!(with(Fault::DmaNeverReady).load(0x2f00) & 8, 0);
    assert_eq!(with(Fault::EepromNeverReady).load(0x1_0010) & 0x200, 0);
    assert_eq!(with(Fault::MacInvalid).load(0xa200), u32::MAX);
    assert_eq!(with(Fault::StatisticsJump).load(0x4074), u32::MAX);
}

#[test]
fn queue_registers_keep_what_can_be_written_when_the_card_sees_the_access() {
    let bench = Bench::new(Config { doorbells: Doorbells::Trapped, ..Config::default() });
    for base in [0x1040, 0xd000, 0x6080] {
        for (register, kept) in [(0, 0xffff_ff80), (4, u32::MAX), (8, 0x000f_ff80), (0x18, 0xffff)] {
            bench.store(base + register, u32::MAX);
            assert_eq!(bench.load(base + register), kept, "{:#x}", base + register);
        }
    }
}

#[test]
fn a_driver_that_waits_for_a_queue_needs_no_poll_in_between() {
    let bench = Bench::new(Config { doorbells: Doorbells::Trapped, ..Config::default() });
    for (length, control) in [(0x1048, 0x1068), (0x6048, 0x6068)] {
        bench.store(length, 0x1000);
        bench.store(control, 1 << 25);
        let enabled = || bench.load(control) & 1 << 25 != 0;
        assert_eq!([enabled(), enabled()], [false, true], "{control:#x}");
        bench.store(control, 0);
        assert_eq!([enabled(), enabled()], [true, false], "{control:#x}");
    }
    assert_eq!(bench.control().violations(), Vec::<String>::new());
}
