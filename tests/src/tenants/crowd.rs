//! Stations that talk to each other, all driven by one thread.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use hugemem::Metadata;

use super::{Check, Daemon, Station, Stream, mac};

/// No datagram for so long means that one is lost.
const PATIENCE: Duration = Duration::from_secs(20);
/// Datagrams of a talk that may be on their way, unless it says otherwise: no queue on the way is ever full.
const WINDOW: u64 = 128;
/// Datagrams that may be on their way to one station, unless they may be lost: its ring has room for all.
const ROOM: u64 = 224;
/// Most datagrams of a talk at a time.
const BURST: u64 = 16;
/// Strays that are kept.
const STRAYS: usize = 1000;

/// A stream from one station to others.
pub struct Talk {
    /// What is said.
    pub stream: Stream,
    /// Who says it.
    pub from: usize,
    /// Who hears it, each with what it has heard.
    pub heard: Vec<(usize, Check)>,
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams to be sent.
    pub limit: u64,
    /// Datagrams that may be on their way.
    pub window: u64,
    /// Between two datagrams.
    pub pace: Option<Duration>,
    due: Instant,
}

impl Talk {
    /// Datagrams that every receiver has, or has passed over.
    fn settled(&self) -> u64 {
        self.heard.iter().map(|(_, check)| check.received + check.lost).min().unwrap_or(self.sent)
    }

    /// Datagrams that the first receiver has.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.heard.first().map_or(0, |(_, check)| check.received)
    }

    /// Some of its datagrams may be lost: nobody waits for them.
    pub fn may_lose(&mut self) {
        self.heard.iter_mut().for_each(|(_, check)| check.may_lose = true);
    }

    /// Datagrams that may be sent now, when listeners have so many talks to hear.
    fn free(&self, talks: &[u64]) -> u64 {
        let most = self.heard.iter().filter_map(|(who, _)| talks.get(*who)).max().copied().unwrap_or(1);
        let window = if self.can_lose() { self.window } else { self.window.min(ROOM / most.max(1)).max(1) };
        let underway = self.sent.saturating_sub(self.settled());
        window.saturating_sub(underway).min(self.limit.saturating_sub(self.sent))
    }

    fn can_lose(&self) -> bool {
        self.heard.iter().any(|(_, check)| check.may_lose)
    }
}

/// Stations and their talks.
#[derive(Default)]
pub struct Crowd {
    /// The stations.
    pub stations: Vec<Station>,
    /// The talks.
    pub talks: Vec<Talk>,
    /// What arrived that is of no talk with that station: who got it, and the frame.
    pub strays: Vec<(usize, Vec<u8>)>,
    frame: Vec<u8>,
    /// The talk that is served first.
    first: usize,
    /// How many talks each station hears.
    heard: Vec<u64>,
}

impl Crowd {
    /// Stations that say nothing.
    #[must_use]
    pub fn new(stations: Vec<Station>) -> Self {
        Self { stations, ..Self::default() }
    }

    /// Stations at the ports of these names, with addresses that end with their numbers from 0.
    ///
    /// # Errors
    ///
    /// One cannot be attached.
    pub fn attach(daemon: &Daemon, names: &[&str]) -> Result<Self> {
        let stations = (0..).zip(names).map(|(number, name)| Station::attach(daemon, name, mac(number)));
        Ok(Self::new(stations.collect::<Result<_>>()?))
    }

    /// One station begins to talk to others, without end when the stream is; the number of the talk.
    pub fn talk(&mut self, stream: Stream, from: usize, to: &[usize]) -> usize {
        let heard = to.iter().map(|station| (*station, Check::new(stream))).collect();
        let limit = if stream.each == u32::MAX { u64::MAX } else { stream.count() };
        let due = Instant::now();
        self.talks.push(Talk { stream, from, heard, sent: 0, limit, window: WINDOW, pace: None, due });
        self.talks.len() - 1
    }

    /// Everybody receives, and, when `speaks`, sends what is due; how many frames arrived.
    ///
    /// # Errors
    ///
    /// A datagram is not as it has to be.
    pub fn turn(&mut self, speaks: bool) -> Result<usize> {
        let Self { stations, talks, strays, frame, first, heard } = self;
        let now = Instant::now();
        heard.clear();
        heard.resize(stations.len(), 0);
        for (who, _) in talks.iter().flat_map(|talk| &talk.heard) {
            if let Some(count) = heard.get_mut(*who) {
                *count += 1;
            }
        }
        // Each time somebody else comes first, as a queue has little room.
        *first = if *first + 1 < talks.len() { *first + 1 } else { 0 };
        let middle = (*first).min(talks.len());
        let (later, sooner) = talks.split_at_mut(middle);
        for talk in sooner.iter_mut().chain(later).filter(|_| speaks) {
            let station = stations.get_mut(talk.from).context("no such station")?;
            let mut burst = BURST.min(talk.free(heard));
            if let Some(pace) = talk.pace {
                // What was missed while this thread did not run is made up for, as far as it is little.
                if now.saturating_duration_since(talk.due) > pace * 1000 {
                    talk.due = now;
                }
                let mut count = 0;
                while count < burst && talk.due <= now {
                    talk.due += pace;
                    count += 1;
                }
                burst = count;
            }
            for _ in 0..burst {
                talk.stream.write(talk.sent, &talk.stream.sent, frame)?;
                if !station.vm.stage(0, frame, Metadata::default())? {
                    station.vm.flush();
                    if !station.vm.stage(0, frame, Metadata::default())? {
                        break;
                    }
                }
                talk.sent += 1;
            }
        }
        let mut arrived = 0;
        for (number, station) in stations.iter_mut().enumerate() {
            station.vm.flush();
            arrived += station.receive(|frame| {
                let mark = Stream::mark(frame);
                let check = mark.and_then(|(id, at)| {
                    let talk = talks.iter_mut().find(|talk| talk.stream.id == id)?;
                    Some((at, talk.heard.iter_mut().find(|(who, _)| *who == number).map(|(_, check)| check)?))
                });
                match check {
                    Some((at, check)) => check.accept(at, frame)?,
                    None if strays.len() < STRAYS => strays.push((number, frame.to_vec())),
                    None => {}
                }
                Ok(())
            })?;
        }
        Ok(arrived)
    }

    /// Talks for a while.
    ///
    /// # Errors
    ///
    /// A datagram is not as it has to be.
    pub fn run(&mut self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            if self.turn(true)? == 0 {
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    /// Says nothing more, and waits until all that was said has arrived.
    ///
    /// # Errors
    ///
    /// Something is lost that may not be.
    pub fn settle(&mut self) -> Result<()> {
        let mut last = Instant::now();
        loop {
            if self.turn(false)? > 0 {
                last = Instant::now();
            }
            let owed = self.talks.iter().any(|talk| !talk.can_lose() && talk.settled() < talk.sent);
            let staged = self.stations.iter().any(|station| station.vm.staged() > 0);
            if !owed && !staged {
                break;
            }
            if last.elapsed() > PATIENCE {
                bail!("frames are lost: {}", self.state());
            }
            std::thread::yield_now();
        }
        // What nobody waits for, and what must not come, comes now if at all.
        let until = Instant::now() + Duration::from_millis(50);
        while Instant::now() < until {
            self.turn(false)?;
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Talks until all that is to be said has arrived.
    ///
    /// # Errors
    ///
    /// Something is lost that may not be.
    pub fn pass(&mut self) -> Result<()> {
        let mut last = Instant::now();
        while self.talks.iter().any(|talk| talk.sent < talk.limit) {
            if self.turn(true)? > 0 {
                last = Instant::now();
            } else if last.elapsed() > PATIENCE {
                bail!("nothing passes any more: {}", self.state());
            } else {
                std::thread::yield_now();
            }
        }
        self.settle()
    }

    /// Talks `count` datagrams of each talk, from where they are, until all of them have arrived.
    ///
    /// # Errors
    ///
    /// Something is lost that may not be.
    pub fn exchange(&mut self, count: u64) -> Result<()> {
        self.talks.iter_mut().for_each(|talk| talk.limit = talk.sent + count);
        self.pass()?;
        self.talks.iter_mut().for_each(|talk| talk.limit = u64::MAX);
        Ok(())
    }

    /// Does something while everybody talks.
    ///
    /// # Errors
    ///
    /// It fails, or a datagram is not as it has to be.
    pub fn busy<T: Send>(&mut self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let working = scope.spawn(work);
            while !working.is_finished() {
                self.turn(true)?;
            }
            working.join().map_err(|_| anyhow!("it panicked"))?
        })
    }

    /// Nothing came that nobody here was to get.
    ///
    /// # Errors
    ///
    /// Something did.
    pub fn must_have_no_strays(&self) -> Result<()> {
        let Some((station, frame)) = self.strays.first() else { return Ok(()) };
        let name = self.stations.get(*station).map_or("?", |station| station.name.as_str());
        let start = frame.get(..frame.len().min(64));
        let count = self.strays.len();
        bail!(
            "{count} frames came that nobody was to get, the first to {name}: {start:02x?} ({:?})",
            Stream::mark(frame)
        )
    }

    /// Takes the strays of a station.
    pub fn strays_of(&mut self, station: usize) -> Vec<Vec<u8>> {
        let (own, others) = std::mem::take(&mut self.strays).into_iter().partition(|(who, _)| *who == station);
        self.strays = others;
        let own: Vec<(usize, Vec<u8>)> = own;
        own.into_iter().map(|(_, frame)| frame).collect()
    }

    /// The station of this number.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn station(&mut self, number: usize) -> Result<&mut Station> {
        self.stations.get_mut(number).context("no such station")
    }

    fn state(&self) -> String {
        let mut lines = Vec::new();
        for talk in &self.talks {
            for (station, check) in &talk.heard {
                lines.push(format!("{} sent, station {station}: {}", talk.sent, check.missing()));
            }
        }
        for station in &self.stations {
            lines.push(format!("{} dropped {:?}", station.name, station.vm.dropped()));
        }
        lines.join("; ")
    }

    /// Detaches everybody; none of them may have dropped anything.
    ///
    /// # Errors
    ///
    /// One has.
    pub fn leave(self) -> Result<()> {
        for station in self.stations {
            let dropped = station.vm.dropped();
            ensure!(dropped.is_empty(), "{} dropped {dropped:?}", station.name);
            station.vm.detach()?;
        }
        Ok(())
    }
}
