//! The function itself: [`PciFunction`] by message.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use drivers::bus::{BusError, PciFunction, PciId};
use hugemem::{IovaRange, Region};
use vfio_bindings::bindings::vfio::{
    VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE, VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_DATA_EVENTFD,
    VFIO_IRQ_SET_DATA_NONE, VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_MSIX_IRQ_INDEX,
};

use super::Options;
use super::connection::Connection;
use super::information::Information;
use super::memory::Memory;
use super::reader::{self, Windows};
use crate::Interrupt;
use crate::bar::Bar;
use crate::configuration::{self, BUS_MASTER, COMMAND, Configuration, MEMORY_SPACE};
use crate::user::UserError;
use crate::user::version::Peer;
use crate::user::wire::{Body, Command};

/// The server has an IOMMU of its own making, without holes. Processors and IOMMUs of today reach 48 bits; what lies below 1 MiB is left free, so
/// that a cleared address is never a good one.
const IOVA: IovaRange = IovaRange { first: 1 << 20, last: (1 << 48) - 1 };

/// Bytes of a DMA_MAP, a DMA_UNMAP and a DEVICE_SET_IRQS.
const MAP: u32 = 32;
const UNMAP: u32 = 24;
const SET: u32 = 20;

/// One PCI function that a vfio-user server plays, owned until it is dropped.
#[derive(Debug)]
pub struct Function {
    connection: Arc<Connection>,
    /// What the server can take.
    peer: Peer,
    information: Information,
    id: PciId,
    bars: [Option<Bar>; 6],
    windows: Arc<Windows>,
    memory: Arc<Memory>,
    message_dma: bool,
    vectors_enabled: bool,
    /// `None` only while being dropped.
    reader: Option<JoinHandle<()>>,
}

impl Function {
    /// Connects to the server that listens at `path`.
    ///
    /// # Errors
    /// When there is none, when it does not answer in time, or when what it serves is no PCI device.
    pub fn connect(path: impl AsRef<Path>, options: Options) -> Result<Self, BusError> {
        let path = path.as_ref();
        let name = options.name.unwrap_or_else(|| format!("vfio-user:{}", path.display()));
        let connection = Arc::new(Connection::open(path, name, options.timeout)?);
        let memory = Arc::<Memory>::default();
        let windows = Arc::<Windows>::default();
        let channel = Arc::clone(&connection.channel);
        let reader =
            reader::spawn("vfio-user", channel, Arc::clone(&memory), Arc::clone(&windows)).map_err(|error| {
                BusError::System {
                    device: connection.name.clone(),
                    action: "cannot start a thread for its messages".into(),
                    reason: error.to_string(),
                }
            })?;
        // From here on dropping `function` ends the thread, whatever goes wrong.
        let mut function = Self {
            connection,
            peer: Peer { files: 0, transfer: 0, write_multiple: false },
            information: Information { can_reset: false, vectors: 0, config_size: 0 },
            id: PciId::default(),
            bars: Default::default(),
            windows,
            memory,
            message_dma: options.message_dma,
            vectors_enabled: false,
            reader: Some(reader),
        };
        function.peer = function.connection.agree()?;
        function.information = function.connection.information()?;
        function.id = function.identity()?;
        function.change_command(MEMORY_SPACE, BUS_MASTER)?;
        Ok(function)
    }

    fn set_interrupts(&self, data: u32, first: usize, count: usize, files: &[BorrowedFd<'_>]) -> Result<(), BusError> {
        // At most 2048 of them.
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let flags = data | VFIO_IRQ_SET_ACTION_TRIGGER;
        let body = Body::new().u32(SET).u32(flags).u32(VFIO_PCI_MSIX_IRQ_INDEX).u32(number(first)).u32(number(count));
        self.connection.ask(Command::SET_IRQS, &body.done(), files).map(drop)
    }

    fn disable_interrupts(&mut self) -> Result<(), BusError> {
        if std::mem::take(&mut self.vectors_enabled) {
            self.set_interrupts(VFIO_IRQ_SET_DATA_NONE, 0, 0, &[])?;
        }
        Ok(())
    }

    fn mapping(&self, action: &'static str, region: &Region, reason: String) -> BusError {
        BusError::Mapping {
            device: self.connection.name.clone(),
            action,
            iova: region.iova().raw(),
            bytes: region.len() as u64,
            reason,
        }
    }

    /// A request about memory went wrong: names the memory, unless the device is gone as a whole.
    fn about(&self, action: &'static str, region: &Region, error: BusError) -> BusError {
        match error {
            BusError::System { reason, .. } => self.mapping(action, region, reason),
            error => error,
        }
    }

    /// Whether the server reaches nothing of `region` any more, though it does not say so: it has hung up, by which it gives all
    /// memory back, or the connection has ended over which alone it reached this. One that is only silent may still write to files that it has mapped.
    fn is_out_of_reach(&self, region: &Region) -> bool {
        match self.connection.channel.ended() {
            None => false,
            Some(UserError::Closed { .. }) => true,
            Some(_) => self.message_dma || region.file().is_none(),
        }
    }

    fn ask_unmap(&self, region: &Region) -> Result<(), BusError> {
        let body = Body::new().u32(UNMAP).u32(0).u64(region.iova().raw()).u64(region.len() as u64).done();
        self.connection.ask(Command::DMA_UNMAP, &body, &[]).map(drop)
    }

    /// Lets the device go, in the order of the kernel's bus. Nothing stops it, and it waits for a silent server only once.
    fn close(&mut self) {
        let mut steps = vec![("bus mastering off", self.set_bus_master(false))];
        if self.information.can_reset {
            steps.push(("reset", self.connection.ask(Command::RESET, &[], &[]).map(drop)));
        }
        steps.push(("interrupts off", self.disable_interrupts()));
        for region in self.memory.all() {
            steps.push(("unmapping", self.ask_unmap(&region)));
        }
        for (step, result) in steps {
            if let Err(error) = result
                && !matches!(error, BusError::Gone { .. })
            {
                tracing::warn!(%error, "{step} failed while letting the device go");
            }
        }
    }
}

impl Configuration for Function {
    fn name(&self) -> &str {
        &self.connection.name
    }

    fn read_word(&self, offset: u16) -> Result<u32, BusError> {
        let mut raw = [0; 4];
        let position = configuration::position(&self.connection.name, self.information.config_size, offset, raw.len())?;
        self.connection.read(VFIO_PCI_CONFIG_REGION_INDEX, position, &mut raw)?;
        Ok(u32::from_le_bytes(raw))
    }

    fn write(&self, offset: u16, bytes: &[u8]) -> Result<(), BusError> {
        let position =
            configuration::position(&self.connection.name, self.information.config_size, offset, bytes.len())?;
        self.connection.write(VFIO_PCI_CONFIG_REGION_INDEX, position, bytes)
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        // Without a version agreed on there is nothing to let go.
        if self.peer.transfer > 0 && self.connection.channel.ended().is_none() {
            self.close();
        }
        let channel = &self.connection.channel;
        channel.end(channel.closed());
        if let Some(reader) = self.reader.take()
            && reader.join().is_err()
        {
            tracing::error!(device = self.connection.name, "the thread for its messages has panicked");
            self.windows.cut();
        }
    }
}

impl PciFunction for Function {
    type Bar = Bar;
    type Interrupt = Interrupt;

    fn name(&self) -> &str {
        &self.connection.name
    }

    fn id(&self) -> PciId {
        self.id
    }

    fn read_config(&self, offset: u16) -> Result<u32, BusError> {
        Configuration::read(self, offset)
    }

    fn write_config(&mut self, offset: u16, value: u32) -> Result<(), BusError> {
        // As behind the kernel: memory decoding stays on.
        let value = if offset == COMMAND { value | u32::from(MEMORY_SPACE) } else { value };
        Configuration::write(self, offset, &value.to_le_bytes())
    }

    fn bar(&mut self, index: u8) -> Result<Bar, BusError> {
        if let Some(Some(bar)) = self.bars.get(usize::from(index)) {
            return Ok(bar.clone());
        }
        let bar = self.connection.window(index)?;
        self.windows.add(bar.clone(), &self.connection.channel);
        if let Some(place) = self.bars.get_mut(usize::from(index)) {
            *place = Some(bar.clone());
        }
        Ok(bar)
    }

    fn iova_ranges(&self) -> Result<Vec<IovaRange>, BusError> {
        Ok(vec![IOVA])
    }

    fn map(&mut self, region: &Region) -> Result<(), BusError> {
        // The device may use it before the reply is here, so it is reachable by message first.
        if !self.memory.add(region) {
            return Ok(());
        }
        let file = region.file().filter(|_| !self.message_dma);
        let flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
        let offset = file.as_ref().map_or(0, |(_, offset)| *offset);
        let body = Body::new().u32(MAP).u32(flags).u64(offset).u64(region.iova().raw()).u64(region.len() as u64).done();
        let file = file.map(|(file, _)| file);
        self.connection.ask(Command::DMA_MAP, &body, file.as_slice()).map(drop).map_err(|error| {
            self.memory.remove(region);
            self.about("map", region, error)
        })
    }

    fn unmap(&mut self, region: &Region) -> Result<(), BusError> {
        if !self.memory.has(region) {
            return Err(self.mapping("unmap", region, "it is not mapped".into()));
        }
        match self.ask_unmap(region) {
            Err(error) if !self.is_out_of_reach(region) => Err(self.about("unmap", region, error)),
            _ => {
                // Waits for an access by message that is underway.
                self.memory.remove(region);
                Ok(())
            }
        }
    }

    fn interrupt_count(&self) -> u16 {
        self.information.vectors
    }

    fn interrupts(&mut self, count: u16) -> Result<Vec<Interrupt>, BusError> {
        let missing = |missing| BusError::Missing { device: self.connection.name.clone(), missing };
        if count > self.information.vectors {
            let there = self.information.vectors;
            return Err(missing(format!("{count} interrupt vectors wanted, {there} there; use fewer queues, or poll")));
        }
        if count > 0 && self.peer.files == 0 {
            return Err(missing("the server takes no file descriptors, and so signals no interrupts; poll".into()));
        }
        let vectors: Vec<Interrupt> = (0..count)
            .map(|_| Interrupt::new(&self.connection.name))
            .collect::<std::io::Result<_>>()
            .map_err(|error| BusError::System {
                device: self.connection.name.clone(),
                action: "cannot enable interrupts".into(),
                reason: error.to_string(),
            })?;
        self.disable_interrupts()?;
        self.vectors_enabled = count > 0;
        let files: Vec<BorrowedFd<'_>> = vectors.iter().map(AsFd::as_fd).collect();
        for (index, part) in files.chunks(self.peer.files.max(1)).enumerate() {
            let first = index * self.peer.files;
            if let Err(error) = self.set_interrupts(VFIO_IRQ_SET_DATA_EVENTFD, first, part.len(), part) {
                // All of them or none.
                let _ = self.disable_interrupts();
                return Err(error);
            }
        }
        Ok(vectors)
    }

    fn set_bus_master(&mut self, enabled: bool) -> Result<(), BusError> {
        if enabled { self.change_command(BUS_MASTER | MEMORY_SPACE, 0) } else { self.change_command(0, BUS_MASTER) }
    }

    fn reset(&mut self) -> Result<(), BusError> {
        if !self.information.can_reset {
            return Err(BusError::Missing {
                device: self.connection.name.clone(),
                missing: "the server has no way to reset it; its driver has to".into(),
            });
        }
        self.change_command(0, BUS_MASTER)?;
        self.connection.ask(Command::RESET, &[], &[])?;
        // The reset may have cleared it, and a driver expects its registers to answer.
        self.change_command(MEMORY_SPACE, BUS_MASTER)
    }
}
