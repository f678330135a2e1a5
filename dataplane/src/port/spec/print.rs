//! Prints specs, so that they can be read again.

use std::fmt;

use serde::{Serialize, Serializer};

use super::{
    FrameSize, GeneratorSpec, PcapSpec, PciName, PciSpec, PortSpec, Rate, RingChoice, TapSpec, VfioChoice,
    VhostUserSpec, VirtioUserSpec,
};

impl fmt::Display for PciName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Interface(name) => f.write_str(name),
            Self::Socket(path) => write!(f, "vfio-user={}", path.display()),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Maximum => f.write_str("max"),
            Self::PerSecond(rate) if rate % 1_000_000 == 0 => write!(f, "{}M", rate / 1_000_000),
            Self::PerSecond(rate) if rate % 1_000 == 0 => write!(f, "{}k", rate / 1_000),
            Self::PerSecond(rate) => rate.fmt(f),
        }
    }
}

impl fmt::Display for FrameSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.shortest == self.longest {
            self.shortest.fmt(f)
        } else {
            write!(f, "{}-{}", self.shortest, self.longest)
        }
    }
}

impl fmt::Display for RingChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Split => "split",
            Self::Packed => "packed",
        })
    }
}

impl fmt::Display for VfioChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Type1 => "type1",
            Self::Iommufd => "iommufd",
        })
    }
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(pci) => pci.fmt(f),
            Self::Tap(tap) => tap.fmt(f),
            Self::Pcap(pcap) => pcap.fmt(f),
            Self::Null => f.write_str("null"),
            Self::Generator(generator) => generator.fmt(f),
            Self::VhostUser(port) => port.fmt(f),
            Self::VirtioUser(port) => port.fmt(f),
        }
    }
}

impl fmt::Display for PciSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.device.fmt(f)?;
        if let Some(queues) = self.queues {
            write!(f, ",queues={queues}")?;
        }
        if self.ring != RingChoice::Auto {
            write!(f, ",ring={}", self.ring)?;
        }
        if self.vfio != VfioChoice::Auto {
            write!(f, ",vfio={}", self.vfio)?;
        }
        if let Some(mac) = self.mac {
            write!(f, ",mac={mac}")?;
        }
        if let Some(mtu) = self.mtu {
            write!(f, ",mtu={mtu}")?;
        }
        if let Some(pause) = self.pause {
            let word = match (pause.rx, pause.tx) {
                (true, true) => "on",
                (false, false) => "off",
                (true, false) => "rx",
                (false, true) => "tx",
            };
            write!(f, ",pause={word}")?;
        }
        if self.promiscuous { Ok(()) } else { f.write_str(",promiscuous=off") }
    }
}

impl fmt::Display for TapSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tap={}", self.name)?;
        if self.queues == 1 { Ok(()) } else { write!(f, ",queues={}", self.queues) }
    }
}

impl fmt::Display for PcapSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pcap=")?;
        if let Some(input) = &self.input {
            write!(f, "{}", input.display())?;
        }
        if let Some(output) = &self.output {
            write!(f, ",out={}", output.display())?;
        }
        if self.repeat == 1 { Ok(()) } else { write!(f, ",loop={}", self.repeat) }
    }
}

impl fmt::Display for GeneratorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gen={}", self.rate)?;
        if self.size != (FrameSize { shortest: 64, longest: 64 }) {
            write!(f, ",size={}", self.size)?;
        }
        if let Some(count) = self.count {
            write!(f, ",count={count}")?;
        }
        if self.flows != 1 {
            write!(f, ",flows={}", self.flows)?;
        }
        match self.queues {
            Some(queues) => write!(f, ",queues={queues}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for VhostUserSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vhost-user={}", self.socket.display())?;
        if self.queues != 1 {
            write!(f, ",queues={}", self.queues)?;
        }
        if !self.client {
            f.write_str(",client=off")?;
        }
        if self.prefault {
            f.write_str(",prefault=on")?;
        }
        if let Some(mtu) = self.mtu {
            write!(f, ",mtu={mtu}")?;
        }
        match self.dma_threshold {
            Some(threshold) => write!(f, ",dma-threshold={threshold}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for VirtioUserSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "virtio-user={}", self.socket.display())?;
        if let Some(queues) = self.queues {
            write!(f, ",queues={queues}")?;
        }
        if self.server {
            f.write_str(",server=on")?;
        }
        if self.ring != RingChoice::Auto {
            write!(f, ",ring={}", self.ring)?;
        }
        if let Some(mac) = self.mac {
            write!(f, ",mac={mac}")?;
        }
        match self.mtu {
            Some(mtu) => write!(f, ",mtu={mtu}"),
            None => Ok(()),
        }
    }
}

impl Serialize for PortSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
