//! A host in a namespace of its own, whose network interface is a TAP port of the switch.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Daemon, Mac, text};
use crate::namespace::Namespace;
use crate::process::run;

/// Its interface.
const INTERFACE: &str = "lan0";
/// For what takes milliseconds on a machine with nothing else to do.
const PATIENCE: Duration = Duration::from_secs(20);
/// So long nothing comes where nothing may come.
const SILENCE: Duration = Duration::from_secs(2);

/// A host.
pub struct Host {
    /// Where it lives.
    pub namespace: Namespace,
}

impl Host {
    /// Takes the TAP of this name, and gives it addresses with the lengths of their prefixes.
    ///
    /// # Errors
    ///
    /// There is no such port, or the kernel refuses.
    pub fn attach(daemon: &Daemon, name: &str, mac: Mac, addresses: &[&str]) -> Result<Self> {
        let namespace = Namespace::new(name)?;
        // Before the interface is there: it takes over what is said of all.
        if addresses.iter().any(|address| address.contains(':')) {
            let enable = "echo 0 > /proc/sys/net/ipv6/conf/default/disable_ipv6";
            run(&mut namespace.command(&["sh", "-c", enable])).context("this kernel has no IPv6")?;
        }
        daemon.namespace.ip(&["link", "set", name, "netns", namespace.name(), "name", INTERFACE])?;
        let mac = text(mac);
        namespace.ip(&["link", "set", INTERFACE, "address", &mac, "txqueuelen", "4000", "addrgenmode", "none"])?;
        namespace.ip(&["link", "set", INTERFACE, "up"])?;
        let host = Self { namespace };
        for address in addresses {
            host.address(address)?;
        }
        Ok(host)
    }

    /// One more address, with the length of its prefix.
    ///
    /// # Errors
    ///
    /// It has that already.
    pub fn address(&self, address: &str) -> Result<()> {
        let words = ["address", "add", address, "dev", INTERFACE];
        let more: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
        self.namespace.ip(&[&words, more].concat()).map(drop)
    }

    /// Sends what it has no other route for to `gateway`.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn gateway(&self, gateway: &str) -> Result<()> {
        let family = if gateway.contains(':') { "-6" } else { "-4" };
        self.namespace.ip(&[family, "route", "add", "default", "via", gateway]).map(drop)
    }

    /// Pings; every request has to be answered.
    ///
    /// # Errors
    ///
    /// One was not; the error has what was printed.
    pub fn ping(&self, address: &str, options: &[&str]) -> Result<String> {
        let words = ["ping", "-n", "-c", "3", "-i", "0.05", "-W", "10", "-w", "30"];
        run(&mut self.namespace.command(&[&words, options, &[address]].concat()))
    }

    /// Pings where nobody may answer.
    ///
    /// # Errors
    ///
    /// Somebody did.
    pub fn ping_in_vain(&self, address: &str, options: &[&str]) -> Result<String> {
        let words = ["ping", "-n", "-c", "2", "-i", "0.2", "-W", "1"];
        let output = self.namespace.command(&[&words, options, &[address]].concat()).output()?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(printed.contains("packets transmitted"), "ping did not run: {printed}");
        ensure!(output.status.code() == Some(1), "{address} answered: {printed}");
        Ok(printed)
    }

    /// Pings until an answer comes: those before may be lost.
    ///
    /// # Errors
    ///
    /// None comes.
    pub fn ping_until_answered(&self, address: &str) -> Result<()> {
        crate::traffic::wait_for_path(&self.namespace, address)
    }

    /// Whether a TCP connection to `server`, which listens at `address`, comes about, and carries bytes both ways.
    ///
    /// # Errors
    ///
    /// Something else went wrong than that nobody answered.
    pub fn reaches(&self, server: &Self, address: &str) -> Result<bool> {
        let address: SocketAddr = address.parse()?;
        let listener = server.namespace.enter(|| Ok(TcpListener::bind(address)?))?;
        std::thread::scope(|scope| {
            let answering = scope.spawn(|| -> Result<()> {
                listener.set_nonblocking(true)?;
                let deadline = std::time::Instant::now() + PATIENCE;
                let mut stream = loop {
                    match listener.accept() {
                        Ok((stream, _)) => break stream,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {
                            ensure!(std::time::Instant::now() < deadline, "nobody connected");
                            std::thread::sleep(Duration::from_millis(5));
                        }
                        Err(error) => return Err(error.into()),
                    }
                };
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                let mut word = [0; 4];
                stream.read_exact(&mut word)?;
                // Nobody asked: the client that gave up says so.
                if word != *b"stop" {
                    stream.write_all(&word)?;
                }
                Ok(())
            });
            let connected = self.namespace.enter(|| match TcpStream::connect_timeout(&address, SILENCE) {
                Ok(mut stream) => {
                    stream.set_read_timeout(Some(PATIENCE))?;
                    stream.write_all(b"ping")?;
                    let mut word = [0; 4];
                    stream.read_exact(&mut word).context("the connection came about, and no answer")?;
                    Ok(true)
                }
                Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => Ok(false),
                Err(error) => Err(error).context("connecting failed at once"),
            });
            if !matches!(connected, Ok(true)) {
                server.namespace.enter(|| Ok(TcpStream::connect(address)?.write_all(b"stop")?))?;
            }
            answering.join().map_err(|_| anyhow::anyhow!("the server panicked"))??;
            connected
        })
    }
}

/// A TCP connection between two hosts.
pub struct Connection {
    client: TcpStream,
    server: TcpStream,
}

impl Host {
    /// Connects to `server` at `address`, where nobody else listens.
    ///
    /// # Errors
    ///
    /// No connection comes about.
    pub fn connect(&self, server: &Self, address: &str) -> Result<Connection> {
        let address: SocketAddr = address.parse()?;
        let listener = server.namespace.enter(|| Ok(TcpListener::bind(address)?))?;
        // The kernel takes it without the listener's doing.
        let client = self.namespace.enter(|| Ok(TcpStream::connect_timeout(&address, PATIENCE)?))?;
        let (server, _) = listener.accept()?;
        Ok(Connection { client, server })
    }
}

impl Connection {
    /// Passes bytes there and back.
    ///
    /// # Errors
    ///
    /// Not within `patience`.
    pub fn echo(&self, patience: Duration) -> Result<()> {
        for (mut from, mut to) in [(&self.client, &self.server), (&self.server, &self.client)] {
            to.set_read_timeout(Some(patience))?;
            from.write_all(&[7])?;
            let mut byte = [0];
            to.read_exact(&mut byte).context("a byte did not arrive")?;
        }
        Ok(())
    }
}
