//! Memory from Linux: huge pages, or ordinary pages when there are none.
//!
//! Every region is a mapping of its own memfd, so that it can be shown to another process and inspected in `/proc`; but for private memory
//! without huge pages, which is anonymous. All of it is populated before it is handed out: later there is no page fault, and no SIGBUS for a huge page that was not there.

#![expect(unsafe_code, reason = "mapped memory becomes a region")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::Advice;

use crate::iova::{Iova, IovaSpace, OutOfIova};
use crate::region::{Backing, PAGE, Region};

const SIZE_2M: usize = 2 << 20;
const SIZE_1G: usize = 1 << 30;

/// Which pages to take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PageChoice {
    /// The largest huge pages of which enough are free and that the request fills at least once; 4 KiB pages when there are none.
    #[default]
    Auto,
    /// Ordinary pages.
    Size4K,
    /// Huge pages of 2 MiB.
    Size2M,
    /// Huge pages of 1 GiB.
    Size1G,
    /// As [`PageChoice::Auto`], for memory that neither devices nor other processes see: when there are no huge pages, it has no file, and the
    /// kernel is asked to put it on what huge pages it can make of ordinary memory.
    Private,
}

impl PageChoice {
    /// Sizes to try in turn for a request of `bytes`.
    fn sizes(self, bytes: usize) -> &'static [usize] {
        match self {
            Self::Auto | Self::Private if bytes >= SIZE_1G => &[SIZE_1G, SIZE_2M, PAGE],
            Self::Auto | Self::Private => &[SIZE_2M, PAGE],
            Self::Size4K => &[PAGE],
            Self::Size2M => &[SIZE_2M],
            Self::Size1G => &[SIZE_1G],
        }
    }
}

/// Memory could not be had. The text says which limit stands in the way and how to raise it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// Too few huge pages are free.
    #[error(
        "huge pages of {}: {wanted} needed, {free} free; reserve them with: echo {} | sudo tee {}",
        size_name(*.page_size), .reserved + .wanted.saturating_sub(*.free), .setting.display()
    )]
    HugePages {
        /// Size of one, in bytes.
        page_size: usize,
        /// How many the request takes.
        wanted: usize,
        /// How many are free.
        free: usize,
        /// How many are reserved in all, used ones included.
        reserved: usize,
        /// Where the number of reserved pages is set.
        setting: PathBuf,
    },
    /// The kernel has no huge pages of this size.
    #[error(
        "this kernel has no huge pages of {}; choose another size (see /sys/kernel/mm/hugepages), or boot with \
         hugepagesz=1G hugepages=N for 1 GiB pages", size_name(*.page_size)
    )]
    NoSuchPages {
        /// Size of one, in bytes.
        page_size: usize,
    },
    /// Not enough memory, or a limit of the process is in the way.
    #[error(
        "out of memory: {bytes} bytes wanted ({source}); ask for less, or raise the limit: address space is {} \
         (ulimit -v), locked memory is {} (ulimit -l), and a cgroup may limit memory.max",
        limit_name(*.address_space), limit_name(*.locked)
    )]
    OutOfMemory {
        /// Bytes asked for.
        bytes: usize,
        /// `RLIMIT_AS` in bytes, `None` when unlimited.
        address_space: Option<u64>,
        /// `RLIMIT_MEMLOCK` in bytes, `None` when unlimited.
        locked: Option<u64>,
        /// What the kernel said.
        source: io::Error,
    },
    /// The NUMA node does not exist or has too little memory.
    #[error("memory on NUMA node {node}: {source}; see /sys/devices/system/node for the nodes that there are")]
    Node {
        /// The node asked for.
        node: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// No room in the devices' address space.
    #[error(transparent)]
    Iova(#[from] OutOfIova),
    /// A system call failed in a way that has no better name.
    #[error("{action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

fn size_name(bytes: usize) -> &'static str {
    match bytes {
        SIZE_1G => "1 GiB",
        SIZE_2M => "2 MiB",
        _ => "4 KiB",
    }
}

fn limit_name(limit: Option<u64>) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), |bytes| format!("{} KiB", bytes >> 10))
}

/// A request for memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemoryRequest {
    /// Bytes wanted; rounded up to whole pages.
    pub bytes: usize,
    /// Which pages to take.
    pub page: PageChoice,
    /// NUMA node to take them from; `None` leaves that to the kernel.
    pub node: Option<u32>,
}

/// What a [`MemoryRequest`] got.
#[derive(Debug)]
pub struct Allocated {
    /// The memory.
    pub region: Region,
    /// Said when the request fell back to 4 KiB pages: what it costs and how to reserve huge pages.
    pub notice: Option<String>,
}

impl MemoryRequest {
    /// Gets the memory, populated and zero, at an address that `space` has free.
    ///
    /// # Errors
    /// When pages of the chosen size are too few, a limit is in the way, the node cannot serve, or `space` is full.
    pub fn allocate(&self, space: &mut IovaSpace) -> Result<Allocated, MemoryError> {
        let mut shortage = None;
        for &page_size in self.page.sizes(self.bytes) {
            match self.map(page_size) {
                Ok(mapping) => {
                    let region = mapping.into_region(page_size, space)?;
                    let notice = shortage.filter(|_| page_size == PAGE).map(|shortage: MemoryError| {
                        format!(
                            "using 4 KiB pages: {} address translations for processor and IOMMU where 2 MiB pages \
                             need one, so throughput drops when the buffers outgrow the TLB. {shortage}",
                            SIZE_2M / PAGE
                        )
                    });
                    return Ok(Allocated { region, notice });
                }
                Err(failure) => shortage = Some(failure),
            }
        }
        Err(shortage.unwrap_or_else(|| self.out_of_memory(io::ErrorKind::InvalidInput.into())))
    }

    fn map(&self, page_size: usize) -> Result<Mapping, MemoryError> {
        let len = self.bytes.max(1).checked_next_multiple_of(page_size);
        let len = len.ok_or_else(|| self.out_of_memory(io::ErrorKind::InvalidInput.into()))?;
        let mapping = if page_size == PAGE && self.page == PageChoice::Private {
            self.map_private(len)?
        } else {
            self.map_file(len, page_size)?
        };
        let Mapping { map, .. } = &mapping;
        let huge = page_size != PAGE;
        if let Some(node) = self.node {
            bind_to_node(map, node).map_err(|source| MemoryError::Node { node, source })?;
        }
        // SAFETY: the mapping is fresh, and populating changes no byte that anybody has seen.
        unsafe { rustix::mm::madvise(map.as_mut_ptr().cast(), len, Advice::LinuxPopulateWrite) }.map_err(|error| {
            match self.node {
                Some(node) if !huge => MemoryError::Node { node, source: error.into() },
                _ if huge => self.too_few(page_size, len),
                _ => self.out_of_memory(error.into()),
            }
        })?;
        Ok(mapping)
    }

    /// Maps memory without a file.
    fn map_private(&self, len: usize) -> Result<Mapping, MemoryError> {
        let map = MmapOptions::new().len(len).map_anon().map_err(|source| self.out_of_memory(source))?;
        // A kernel that has no such pages says so: then it is as it would be anyway.
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Mapping { map: map.into(), file: None })
    }

    /// Maps a memfd of its own.
    fn map_file(&self, len: usize, page_size: usize) -> Result<Mapping, MemoryError> {
        let size_flag = match page_size {
            SIZE_1G => MemfdFlags::HUGETLB | MemfdFlags::HUGE_1GB,
            SIZE_2M => MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB,
            _ => MemfdFlags::empty(),
        };
        let huge = page_size != PAGE;
        let memfd = rustix::fs::memfd_create("mirach", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | size_flag)
            .map_err(|error| match error {
                rustix::io::Errno::NODEV | rustix::io::Errno::INVAL | rustix::io::Errno::NOENT if huge => {
                    MemoryError::NoSuchPages { page_size }
                }
                _ => MemoryError::System { action: "memfd_create", source: error.into() },
            })?;
        let file = File::from(memfd);
        file.set_len(len as u64).map_err(|source| self.out_of_memory(source))?;
        // The file may be handed to other processes: none of them can cut pages off under those who touch them.
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
            .map_err(|error| MemoryError::System { action: "seal the length of memory", source: error.into() })?;
        let shortage = |source| {
            if huge { self.too_few(page_size, len) } else { self.out_of_memory(source) }
        };
        let map = MmapOptions::new().len(len).map_raw(&file).map_err(shortage)?;
        Ok(Mapping { map, file: Some(file) })
    }

    fn too_few(&self, page_size: usize, len: usize) -> MemoryError {
        let pages = huge_page_folder(page_size, self.node);
        let read = |name: &str| {
            std::fs::read_to_string(pages.join(name)).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
        };
        MemoryError::HugePages {
            page_size,
            wanted: len / page_size,
            free: read("free_hugepages"),
            reserved: read("nr_hugepages"),
            setting: pages.join("nr_hugepages"),
        }
    }

    fn out_of_memory(&self, source: io::Error) -> MemoryError {
        let limit = |which| rustix::process::getrlimit(which).current;
        MemoryError::OutOfMemory {
            bytes: self.bytes,
            address_space: limit(rustix::process::Resource::As),
            locked: limit(rustix::process::Resource::Memlock),
            source,
        }
    }
}

/// Where the kernel keeps its numbers of huge pages, for all nodes or one.
fn huge_page_folder(page_size: usize, node: Option<u32>) -> PathBuf {
    let folder = format!("hugepages/hugepages-{}kB", page_size >> 10);
    match node {
        None => Path::new("/sys/kernel/mm").join(folder),
        Some(node) => Path::new("/sys/devices/system/node").join(format!("node{node}")).join(folder),
    }
}

/// Lets the pages of `map` come from `node` and no other.
fn bind_to_node(map: &MmapRaw, node: u32) -> io::Result<()> {
    const MASK_BITS: usize = 1024;
    let mut mask = [0_u64; MASK_BITS / 64];
    let word = mask.get_mut(node as usize / 64).ok_or(io::ErrorKind::InvalidInput)?;
    *word = 1 << (node % 64);
    // SAFETY: the range is one mapping of ours and the mask has as many bits as is said (the kernel takes one less).
    let result = unsafe {
        libc::syscall(libc::SYS_mbind, map.as_mut_ptr(), map.len(), libc::MPOL_BIND, mask.as_ptr(), MASK_BITS + 1, 0)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A mapping, of a memfd when it has a file.
struct Mapping {
    map: MmapRaw,
    file: Option<File>,
}

impl Backing for Mapping {
    fn file(&self) -> Option<(BorrowedFd<'_>, u64)> {
        self.file.as_ref().map(|file| (file.as_fd(), 0))
    }
}

impl Mapping {
    fn into_region(self, page_size: usize, space: &mut IovaSpace) -> Result<Region, MemoryError> {
        let len = self.map.len();
        // Aligned to 2 MiB even for small pages: the IOMMU then uses large translations wherever memory is contiguous.
        let alignment = page_size.max(SIZE_2M) as u64;
        let iova: Iova = space.allocate(len as u64, alignment)?;
        let base = NonNull::new(self.map.as_mut_ptr())
            .ok_or_else(|| MemoryError::System { action: "mmap", source: io::ErrorKind::InvalidData.into() })?;
        // SAFETY: a fresh, zeroed, populated mapping that `self` keeps and nobody else uses; `page_size` is that of the memfd.
        Ok(unsafe { Region::new(base, len, iova, page_size, Box::new(self)) })
    }
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn ordinary_pages_always_work_and_share_a_file() {
        let request = MemoryRequest { bytes: 100_000, page: PageChoice::Size4K, node: None };
        let got = request.allocate(&mut IovaSpace::unlimited()).unwrap();
        assert_eq!(got.region.len(), 102_400);
        assert_eq!(got.region.page_size(), PAGE);
        assert!(got.notice.is_none(), "4 KiB pages were asked for");
        let (file, offset) = got.region.file().unwrap();
        assert_eq!(rustix::fs::fstat(file).unwrap().st_size, 102_400);
        assert_eq!(offset, 0);
        for length in [0, 204_800] {
            assert_eq!(
                rustix::fs::ftruncate(file, length),
                Err(rustix::io::Errno::PERM),
                "whoever has it cannot resize it"
            );
        }
    }

    #[test]
    fn private_memory_has_no_file_unless_it_is_on_huge_pages_of_its_own() {
        let free: usize = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
            .map_or(0, |text| text.trim().parse().unwrap());
        let bytes = (free + 1) * SIZE_2M;
        let request = MemoryRequest { bytes, page: PageChoice::Private, node: None };
        let got = request.allocate(&mut IovaSpace::unlimited()).unwrap();
        assert!(got.region.len() == bytes && got.region.file().is_none() && got.notice.is_some());
        let words = got.region.array::<core::sync::atomic::AtomicU64>(bytes / 8, 64).unwrap();
        assert!(words.iter().step_by(511).all(|word| word.load(core::sync::atomic::Ordering::Relaxed) == 0));
    }

    #[test]
    fn falling_back_says_what_it_costs_and_how_to_reserve() {
        // More than any machine reserves by chance: one huge page more than are free.
        let free: usize = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
            .map_or(0, |text| text.trim().parse().unwrap());
        let bytes = (free + 1) * SIZE_2M;
        let refused = MemoryRequest { bytes, page: PageChoice::Size2M, node: None };
        let error = refused.allocate(&mut IovaSpace::unlimited()).unwrap_err().to_string();
        assert!(error.contains("2 MiB") && error.contains("nr_hugepages"), "{error}");
        let request = MemoryRequest { bytes, page: PageChoice::Auto, node: None };
        let got = request.allocate(&mut IovaSpace::unlimited()).unwrap();
        let notice = got.notice.unwrap();
        assert!(notice.contains("4 KiB") && notice.contains("sudo tee"), "{notice}");
    }

    #[test]
    fn a_node_is_an_argument_and_a_missing_one_is_named() {
        let on = |node| MemoryRequest { bytes: PAGE, page: PageChoice::Size4K, node: Some(node) };
        on(0).allocate(&mut IovaSpace::unlimited()).unwrap();
        let error = on(700).allocate(&mut IovaSpace::unlimited()).unwrap_err().to_string();
        assert!(error.contains("NUMA node 700"), "{error}");
    }

    #[test]
    fn more_memory_than_there_is_names_the_limits() {
        let request = MemoryRequest { bytes: usize::MAX / 2, page: PageChoice::Size4K, node: None };
        let error = request.allocate(&mut IovaSpace::unlimited()).unwrap_err().to_string();
        assert!(error.contains("ulimit -l") && error.contains("memory.max"), "{error}");
    }

    #[test]
    fn a_full_address_space_is_an_error() {
        let mut space = IovaSpace::new(&[]);
        let request = MemoryRequest { bytes: PAGE, page: PageChoice::Size4K, node: None };
        assert!(matches!(request.allocate(&mut space), Err(MemoryError::Iova(_))));
    }
}
