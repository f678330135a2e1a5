//! What can be wrong with the memory of a guest, and with an address in it.

use std::io;

use super::address::{Access, GuestAddress};

/// A file cannot serve as memory of a guest. Nothing was mapped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuestError {
    /// It is a device, a socket, a pipe or a folder, or lies on another kind of file system, whose pages may block for ever or vanish.
    #[error(
        "guest memory: {file} is no memory, which only files on memfd, tmpfs and hugetlbfs are; give the VM memory that can be shared, as with `-object memory-backend-memfd,share=on`"
    )]
    NotMemory {
        /// What the kernel calls it, in quotes.
        file: String,
    },
    /// More bytes than are mapped for one VM.
    #[error("guest memory: a VM can have {} GiB at most; give it less", .most >> 30)]
    TooLarge {
        /// How many there may be.
        most: u64,
    },
    /// More bytes than are mapped for all VMs together.
    #[error("guest memory: all VMs together can have {} GiB at most; remove ports, or give VMs less", .most >> 30)]
    Exhausted {
        /// How many there may be.
        most: u64,
    },
    /// The region has no bytes, or its end is beyond the end of all addresses.
    #[error(
        "guest memory: a region of {size:#x} bytes at {at:#x} cannot be ({what}); the VMM's memory table is broken"
    )]
    Geometry {
        /// Which address.
        what: &'static str,
        /// Its value.
        at: u64,
        /// Bytes of the region.
        size: u64,
    },
    /// The file ends before the region does.
    #[error(
        "guest memory: the region needs {needed:#x} bytes of its file, which has {has:#x}; the VMM's memory table is broken"
    )]
    TooShort {
        /// Bytes that the file would have to have.
        needed: u64,
        /// Bytes that it has.
        has: u64,
    },
    /// Two regions share addresses.
    #[error(
        "guest memory: the region at {at:#x} overlaps another in {what} addresses; the VMM's memory table is broken"
    )]
    Overlap {
        /// Which addresses: guest or user.
        what: &'static str,
        /// Start of the new region in these.
        at: u64,
    },
    /// More regions than a table may have.
    #[error("guest memory: more than {most} regions; give the VM fewer memory devices")]
    TooManyRegions {
        /// How many there may be.
        most: usize,
    },
    /// The region to be removed is not there.
    #[error("guest memory: there is no region at {at:#x} of {size:#x} bytes to remove")]
    NoSuchRegion {
        /// Start of the region in guest addresses.
        at: u64,
        /// Bytes of the region.
        size: u64,
    },
    /// The process has mapped as many guest files as it can watch for faults.
    #[error(
        "guest memory: {most} mappings of all VMs together are in use; remove ports, or give VMs fewer memory devices"
    )]
    TooManyMappings {
        /// How many there may be.
        most: usize,
    },
    /// The system refused.
    #[error("guest memory: cannot {action}: {source}{}", remedy(.source))]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// What the user can do about an error of the system.
fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOMEM) => {
            "; raise vm.max_map_count, the limit on address space (ulimit -v) or the number of huge pages"
        }
        Some(libc::EACCES | libc::EPERM) => {
            "; the VMM has to pass the file open for reading and writing, without a write seal"
        }
        _ => "",
    }
}

/// An address from a guest leads nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadAddress {
    /// No region has it.
    #[error("{at} is in no memory region of the guest")]
    Outside {
        /// The first address that is in no region.
        at: GuestAddress,
    },
    /// The I/O TLB does not know it yet: the frontend is to be asked.
    #[error("{iova} has no translation for {access} yet")]
    Miss {
        /// The first address without translation.
        iova: GuestAddress,
        /// What it was wanted for.
        access: Access,
    },
    /// The words are not contiguous in memory of ours, or not aligned.
    #[error("{bytes:#x} bytes at {at} are not one aligned piece of the guest's memory")]
    Divided {
        /// Address of the first word.
        at: GuestAddress,
        /// Bytes of all words.
        bytes: u64,
    },
    /// The range falls into more pieces than any frame has.
    #[error("{len:#x} bytes at {at} are scattered over more than {most} pieces")]
    Scattered {
        /// Start of the range.
        at: GuestAddress,
        /// Its length in bytes.
        len: u32,
        /// How many pieces there may be.
        most: usize,
    },
}
