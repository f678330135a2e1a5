//! The `vhost` crate's frontend, which Cloud Hypervisor and others use, as a peer that we did not write.

use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use hugemem::Batch;
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserInflight, VhostUserProtocolFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserDirtyLogRegion, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

use super::Station;
use super::vmm::{LOG_ALL, MEMORY, PROTOCOL, USER, VERSION_1, layout, memfd};

#[test]
fn another_frontend_agrees_with_us_on_every_message() {
    let mut station = Station::open(1);
    let mut frontend = Frontend::connect(&station.path, 2).unwrap();
    frontend.set_owner().unwrap();
    let features = frontend.get_features().unwrap();
    let protocol = frontend.get_protocol_features().unwrap();
    assert!(protocol.contains(VhostUserProtocolFeatures::REPLY_ACK | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS));
    frontend.set_protocol_features(protocol).unwrap();
    // From here on everything is answered.
    frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    frontend.set_features(features & (VERSION_1 | PROTOCOL)).unwrap();
    assert_eq!(frontend.get_queue_num().unwrap(), 2);
    assert!(frontend.get_max_mem_slots().unwrap() >= 8);
    let (_, config) = frontend.get_config(6, 4, VhostUserConfigFlags::empty(), &[0; 4]).unwrap();
    assert_eq!(config, [1, 0, 1, 0], "the link is up, and there is one pair");

    let shape = VhostUserInflight::new(0, 0, 2, 8);
    let (inflight, file) = frontend.get_inflight_fd(&shape).unwrap();
    assert!(inflight.mmap_size >= 2 * (16 + 8 * 16));
    frontend.set_inflight_fd(&inflight, file.as_raw_fd()).unwrap();

    let (memory, more) = (memfd(MEMORY), memfd(MEMORY));
    let region = |guest: u64, file: &std::fs::File| VhostUserMemoryRegionInfo {
        guest_phys_addr: guest,
        memory_size: MEMORY,
        userspace_addr: USER + guest,
        mmap_offset: 0,
        mmap_handle: file.as_raw_fd(),
    };
    frontend.set_mem_table(&[region(0, &memory)]).unwrap();
    frontend.add_mem_region(&region(1 << 32, &more)).unwrap();
    let events = [EventFd::new(0).unwrap(), EventFd::new(0).unwrap()];
    for (queue, number) in [0, 1].into_iter().zip(0..) {
        let [descriptors, available, used] = layout(number).map(|offset| USER + offset);
        let config = VringConfigData {
            queue_max_size: 8,
            queue_size: 8,
            flags: 0,
            desc_table_addr: descriptors,
            used_ring_addr: used,
            avail_ring_addr: available,
            log_addr: None,
        };
        frontend.set_vring_num(queue, 8).unwrap();
        frontend.set_vring_base(queue, 0).unwrap();
        frontend.set_vring_addr(queue, &config).unwrap();
        frontend.set_vring_call(queue, &events[queue]).unwrap();
        frontend.set_vring_err(queue, &events[queue]).unwrap();
        frontend.set_vring_kick(queue, &events[queue]).unwrap();
        frontend.set_vring_enable(queue, true).unwrap();
    }
    assert!(station.port.control.link().up);

    // Its log of dirty pages, which a frame that arrives marks.
    let log = memfd(4096);
    let dirty = VhostUserDirtyLogRegion { mmap_size: 4096, mmap_offset: 0, mmap_handle: log.as_raw_fd() };
    frontend.set_log_base(0, Some(dirty)).unwrap();
    frontend.set_log_fd(events[0].as_raw_fd()).unwrap();
    frontend.set_features(features & (VERSION_1 | PROTOCOL | LOG_ALL)).unwrap();
    // A buffer of 2 KiB at page 32 for the VM to receive into, and a frame from elsewhere.
    let mut descriptor = (32_u64 << 12).to_le_bytes().to_vec();
    descriptor.extend([0, 8, 0, 0, 2, 0, 0, 0]);
    let [descriptors, available, used] = layout(0);
    memory.write_all_at(&descriptor, descriptors).unwrap();
    memory.write_all_at(&[1, 0], available + 2).unwrap();
    let pool = hugemem::Region::on_heap(1 << 16, hugemem::Iova::new(0)).unwrap().packets(4, 2048);
    let mut packet = pool.unwrap().take().unwrap();
    packet.write(&[0x5a; 60]).unwrap();
    let mut batch = Batch::new(4);
    assert!(batch.push(packet).is_ok());
    assert_eq!(station.port.queues[0].tx.transmit(&mut batch), 1);
    let mut bytes = [0; 60];
    memory.read_exact_at(&mut bytes, (32 << 12) + 12).unwrap();
    assert_eq!(bytes, [0x5a; 60]);
    let mut index = [0; 2];
    memory.read_exact_at(&mut index, used + 2).unwrap();
    assert_eq!(index, [1, 0]);
    let mut bits = [0; 5];
    log.read_exact_at(&mut bits, 0).unwrap();
    assert_eq!(bits[4], 1, "page 32 is dirty");

    frontend.remove_mem_region(&region(1 << 32, &more)).unwrap();
    frontend.set_vring_enable(0, false).unwrap();
    assert_eq!(frontend.get_vring_base(0).unwrap(), 1);
    assert_eq!(frontend.get_vring_base(1).unwrap(), 0);
    frontend.reset_device().unwrap();
    frontend.reset_owner().unwrap();
    assert!(frontend.set_vring_num(0, 3).is_err(), "it hears of what cannot be");
    frontend.set_vring_num(0, 4).unwrap();
    drop((frontend, file, memory, more, log, events));
    assert!(station.settle().contains("closed"));
    station.close();
}
