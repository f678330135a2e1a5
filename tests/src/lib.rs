//! The lab: guests, namespaces and traffic for the end-to-end tests.
//!
//! A test makes two network [`namespace`]s, opens a tap device in each, and boots a QEMU [`guest`] that has the other
//! ends of the taps as virtio-net devices, or as software [`card`]s, behind an emulated Intel IOMMU. What runs in the guest is told to it through
//! an [`agent`]; what passes through the guest is real traffic between the namespaces ([`frames`], [`traffic`]).
//!
//! Whatever a test makes belongs to a value whose drop removes it: QEMU is killed, namespaces and folders go. QEMU
//! also dies with the test's process, and what a killed run left behind is removed by the next one ([`leftovers`]).
//!
//! The lab needs root, and what `cargo xtask setup` installs; what is missing is an error that says so.

pub mod agent;
pub mod binaries;
pub mod cache;
pub mod card;
pub mod checks;
pub mod conformance;
pub mod copy_conformance;
pub mod ethtool;
pub mod flow_bench;
pub mod forwarder;
pub mod frames;
pub mod guest;
pub mod guest_traffic;
pub mod hostile;
pub mod initramfs;
pub mod leftovers;
pub mod machine;
pub mod monitor;
pub mod namespace;
pub mod ovs_bench;
pub mod packet_socket;
pub mod pair;
pub mod peer_bench;
pub mod process;
pub mod site;
pub mod suite;
pub mod switch;
pub mod tap;
pub mod tenants;
pub mod testpmd;
pub mod tools;
pub mod traffic;
pub mod vhost_bench;
pub mod vm;
pub mod wait;
