//! User-space device drivers, generic over the bus that reaches the device.
//!
//! A driver states what it needs of a bus ([`bus::PciFunction`]) and what it offers to the packet path
//! ([`nic::RxQueue`], [`nic::TxQueue`], [`nic::Nic`], [`copy_engine::CopyEngine`], [`copy_engine::CopyDevice`]). The same driver code runs over kernel VFIO, over a model in the same process,
//! and later with no operating system at all: this crate is `no_std` and never names a bus.
//!
//! A driver does not trust its device. It keeps its own copy of ring state, checks every length, index and identifier
//! that it reads against that copy, and puts a deadline on every wait.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod bus;
pub mod checksum;
pub mod copy_engine;
pub mod dsa;
mod error;
mod health;
mod home;
pub mod ioat;
pub mod ixgbe;
pub mod nic;
mod reach;
pub mod register;
mod stopped;
pub mod virtio;

pub use error::DeviceError;
