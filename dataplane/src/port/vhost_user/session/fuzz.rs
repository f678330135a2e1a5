//! A VMM that sends anything, with any descriptors, while its rings are polled.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "fuzzing, where a panic is a finding")]

use std::cell::RefCell;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use drivers::nic::{RxQueue, TxQueue};
use hugemem::{Batch, Iova, Region};
use rustix::fs::MemfdFlags;
use vhost::vhost_user::message::FrontendReq;

use super::device::{Device, attention};
use super::features;
use super::state::Session;
use super::wire::Assembler;
use crate::guest::MapOptions;
use crate::port::vhost_user::fuzz::Input;
use crate::port::vhost_user::notify::{Kick, Notifier};
use crate::port::vhost_user::queue::{PIECES, SLOT_ROOM, SLOTS, VmRx, VmTx, receive_queue, transmit_queue};

/// Bytes of the VM's memory, and where the frontend has it.
const MEMORY: u64 = 0x1_0000;
const USER: u64 = 1 << 32;
/// Sizes that bodies have.
const SIZES: [u16; 12] = [0, 8, 8, 8, 8, 40, 40, 16, 20, 24, 32, 72];
/// Largest number of a request, and one more.
const REQUESTS: u8 = 46;

/// A port without thread and socket, kept for all scripts of a thread.
struct Port {
    device: Device,
    rx: VmRx,
    tx: VmTx,
    memory: File,
    batch: Batch,
}

thread_local! {
    static PORT: RefCell<Port> = RefCell::new(Port::new());
}

/// Sessions: messages with descriptors, honest ones and others, and ring contents. See [`fuzz`](crate::port::vhost_user::fuzz).
pub fn session(bytes: &[u8]) {
    PORT.with_borrow_mut(|port| port.run(Input::new(bytes)));
}

impl Port {
    fn new() -> Self {
        let attention = attention().unwrap();
        let region = Region::on_heap(SLOTS * 256 + 4096, Iova::new(0)).unwrap();
        let pool = region.packets_with_foreign(SLOTS, SLOT_ROOM, PIECES).unwrap();
        let (rx, from_vm) = receive_queue(pool, Arc::clone(&attention));
        let (tx, to_vm) = transmit_queue(Arc::clone(&attention), None);
        let (notifier, kicks) = (Notifier::new().unwrap(), vec![Kick::new().unwrap()]);
        let vrings = vec![to_vm, from_vm];
        let device = Device::new("fuzz", vrings, kicks, notifier, attention, MapOptions::default(), 1500);
        let memory = File::from(rustix::fs::memfd_create("fuzz", MemfdFlags::CLOEXEC).unwrap());
        memory.set_len(MEMORY).unwrap();
        Self { device, rx, tx, memory, batch: Batch::new(32) }
    }

    fn run(&mut self, mut input: Input<'_>) {
        let mut session = Session::new(&self.device);
        let mut assembler = Assembler::default();
        self.memory.write_all_at(&[0; MEMORY as usize], 0).unwrap();
        let mut alive = true;
        if input.u8() & 3 != 0 {
            for (request, body, files) in self.honest(input.u16()) {
                alive &= serve(&mut session, &mut assembler, request as u32, 1, &body, files);
            }
        }
        while alive && !input.is_empty() {
            let action = input.u8();
            match action & 3 {
                0 => {
                    // What the driver writes to its rings.
                    let at = u64::from(input.u16()) & !7;
                    let count = 8 * usize::from(action >> 4);
                    let bytes = input.bytes(count);
                    self.memory.write_all_at(bytes, at.min(MEMORY - 128)).unwrap();
                }
                1 => {
                    self.rx.receive(&mut self.batch);
                    self.tx.transmit(&mut self.batch);
                    self.batch.clear();
                    self.rx.receive(&mut self.batch);
                    self.batch.clear();
                    if action & 4 != 0 {
                        session.drain_channel();
                    }
                    alive = session.attend().is_ok();
                }
                _ => {
                    let request = u32::from(input.u8() % REQUESTS);
                    let flags = if action & 4 == 0 { 1 } else { input.u8().into() };
                    let size = usize::from(input.u8());
                    let size = SIZES.get(size).map_or(size, |size| usize::from(*size));
                    let mut body = input.bytes(size).to_vec();
                    body.resize(size, 0);
                    let files = (0..usize::from(action >> 6)).map(|_| self.file(input.u8())).collect();
                    alive = serve(&mut session, &mut assembler, request, flags, &body, files);
                }
            }
        }
        drop(session);
        self.rx.receive(&mut self.batch);
        assert!(self.batch.is_empty(), "after its session a VM sends nothing");
        assert!(self.device.vrings.iter().all(|vring| !vring.is_running()), "nothing runs after a session");
    }

    /// A descriptor of some kind, more often one that fits.
    fn file(&self, kind: u8) -> OwnedFd {
        match kind % 8 {
            0 | 1 => attention().unwrap().try_clone().unwrap(),
            2 => File::open("/dev/zero").unwrap().into(),
            3 => rustix::pipe::pipe().unwrap().0,
            4 => std::os::unix::net::UnixStream::pair().unwrap().0.into(),
            5 => {
                let short = File::from(rustix::fs::memfd_create("short", MemfdFlags::CLOEXEC).unwrap());
                short.set_len(u64::from(kind) * 64).unwrap();
                short.into()
            }
            _ => self.memory.try_clone().unwrap().into(),
        }
    }

    /// The messages of a VMM that starts both rings, without the features in `missing`, which may be vital.
    fn honest(&self, missing: u16) -> Vec<(FrontendReq, Vec<u8>, Vec<OwnedFd>)> {
        let number = |value: u64| value.to_le_bytes().to_vec();
        let words = |values: &[u64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
        let mut messages = vec![
            (FrontendReq::SET_OWNER, Vec::new(), Vec::new()),
            (FrontendReq::SET_PROTOCOL_FEATURES, number(features::protocol().bits()), Vec::new()),
        ];
        // The lowest bits are the event index and its neighbours, the highest ones packed rings and the IOMMU.
        let without = u64::from(missing & 0xff) << 28 | u64::from(missing >> 8) << 33;
        messages.push((FrontendReq::SET_FEATURES, number(features::device() & !without), Vec::new()));
        let table = words(&[1, 0, MEMORY, USER, 0]);
        messages.push((FrontendReq::SET_MEM_TABLE, table, vec![self.memory.try_clone().unwrap().into()]));
        for ring in 0..2_u64 {
            let packed = missing & 0x40 == 0;
            let place = USER + 0x4000 * ring;
            messages.push((FrontendReq::SET_VRING_NUM, number(ring | 16 << 32), Vec::new()));
            let base = if packed { 0x8000_8000 } else { 0 };
            messages.push((FrontendReq::SET_VRING_BASE, number(ring | base << 32), Vec::new()));
            let areas = words(&[ring, place, place + 0x2000, place + 0x1000, 0]);
            messages.push((FrontendReq::SET_VRING_ADDR, areas, Vec::new()));
            for request in [FrontendReq::SET_VRING_CALL, FrontendReq::SET_VRING_KICK] {
                messages.push((request, number(ring), vec![self.file(0)]));
            }
            messages.push((FrontendReq::SET_VRING_ENABLE, number(ring | 1 << 32), Vec::new()));
        }
        messages
    }
}

/// Sends one message in two pieces. `false` when it ended the session.
fn serve(
    session: &mut Session<'_>,
    assembler: &mut Assembler,
    request: u32,
    flags: u32,
    body: &[u8],
    files: Vec<OwnedFd>,
) -> bool {
    let size = body.len() as u32;
    let header: Vec<u8> = [request, flags, size].iter().flat_map(|field| field.to_le_bytes()).collect();
    let message = match assembler.take(&header, files) {
        Ok(None) if !body.is_empty() => assembler.take(body, Vec::new()),
        other => other,
    };
    match message {
        Ok(Some(message)) => session.serve(message).is_ok(),
        Ok(None) => true,
        Err(_) => false,
    }
}
