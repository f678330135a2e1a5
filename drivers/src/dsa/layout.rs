//! The configuration of a device: which work queues and engines belong together. Written while the device is disabled.

use super::capabilities::Capabilities;
use super::options::{Summary, Version};
use super::registers::{
    GENCFG, GENCTRL, GRPENGCFG, GRPFLAGS, GRPWQCFG, WQ_LIMITS, WQ_MODE, WQ_OCCUPANCY_INTERRUPT, WQ_SIZE, WQ_THRESHOLD,
    group_flags, wq_mode,
};
use crate::bus::Bar;

/// Up to here the makers set the traffic classes.
const OLD_CLASSES: Version = Version(0x200);

/// Work queue `n` is channel `n`; queues and engines are dealt out to as many groups as have at least one of both, so that channels wait
/// for each other as little as can be.
pub(super) fn write(bar: &impl Bar, capabilities: &Capabilities, summary: &Summary) {
    // The limit of read buffers, user interrupts and the event log are not used; nor are interrupts for errors, which are polled.
    GENCFG.store(bar, 0, 0);
    GENCTRL.store(bar, 0, 0);
    let groups = capabilities.groups_in_use(summary.channels);
    for group in 0..capabilities.groups {
        let is_used = group < groups;
        let dealt = |count: u8| (group..count).step_by(groups.into()).filter(|_| is_used);
        let base = capabilities.group(group);
        for (register, first) in GRPWQCFG.iter().zip((0_u16..).step_by(64)) {
            let bits = dealt(summary.channels).filter_map(|queue| u16::from(queue).checked_sub(first));
            register.store(bar, base, bits.filter(|bit| *bit < 64).fold(0, |word, bit| word | 1 << bit));
        }
        let engines = dealt(capabilities.engines.min(64)).fold(0, |word, engine| word | 1 << engine);
        GRPENGCFG.store(bar, base, engines);
        let classes = if summary.version <= OLD_CLASSES { group_flags::CLASSES } else { 0 };
        GRPFLAGS.store(bar, base, classes | u64::from(capabilities.read_buffers) << group_flags::BUFFERS_SHIFT);
    }
    for queue in 0..capabilities.queues {
        let base = capabilities.queue(queue);
        if queue >= summary.channels {
            WQ_SIZE.store(bar, base, 0);
            continue;
        }
        let size = u32::from(summary.entries);
        WQ_SIZE.store(bar, base, size);
        WQ_THRESHOLD.store(bar, base, if summary.shared { size } else { 0 });
        // No PASID, no block-on-fault: a fault is told at once.
        WQ_MODE.store(bar, base, wq_mode::PRIORITY | if summary.shared { 0 } else { wq_mode::DEDICATED });
        let limits = u32::from(capabilities.copy_shift) | u32::from(capabilities.batch_shift) << 5;
        WQ_LIMITS.store(bar, base, limits);
        WQ_OCCUPANCY_INTERRUPT.store(bar, base, 0);
        for (register, word) in capabilities.operations().into_iter().flatten() {
            register.store(bar, base, word);
        }
    }
}
