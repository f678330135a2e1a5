//! Frames from one machine to another, with a bounded number of them on their way.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Check, Seen, Series, Vm};

/// No frame for so long means that one is lost: this machine may be busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many frames to pass, and how.
#[derive(Clone, Copy, Debug)]
pub struct Passage {
    /// What is in them.
    pub series: Series,
    /// How many, at most.
    pub count: u64,
    /// After so long no more are sent, but for the first thousandth: this machine may be slow, or busy with other things.
    pub limit: Duration,
    /// How many may be on their way: as many as every queue on the way can hold, so that none may be lost.
    pub window: u64,
}

/// What passed.
#[derive(Clone, Copy, Debug)]
pub struct Passed {
    /// Frames.
    pub count: u64,
    /// From the first frame to the last.
    pub time: Duration,
    /// Frames that carried a request to be cut into segments when they arrived.
    pub large: u64,
}

impl Passage {
    /// Passes the frames; every one has to arrive once, whole, and in order on its queue.
    ///
    /// # Errors
    ///
    /// One did not.
    pub fn run(self, from: &mut Vm, to: &mut Vm) -> Result<Passed> {
        let pairs = from.pairs();
        let mut check = Check::new(self.series, pairs);
        let mut frame = Vec::new();
        let (mut staged, mut large, mut count) = (0, 0, self.count);
        let started = Instant::now();
        let mut last = started;
        while check.received < count {
            if staged < count && started.elapsed() > self.limit {
                count = staged.max(self.count.div_ceil(1000));
            }
            while staged < count && staged - check.received < self.window {
                let metadata = self.series.write(staged, 0, &mut frame);
                let queue = usize::try_from(staged % pairs as u64).unwrap_or(0);
                if !from.stage(queue, &frame, metadata)? {
                    break;
                }
                staged += 1;
            }
            from.flush();
            let mut seen = 0;
            to.receive(|packet| {
                if let Seen::Ours(_) = check.accept(packet)? {
                    large += u64::from(packet.metadata().segmentation.is_some());
                    seen += 1;
                }
                Ok(())
            })
            .with_context(|| format!("after {} frames", check.received))?;
            if seen > 0 {
                last = Instant::now();
            } else if last.elapsed() > PATIENCE {
                bail!(
                    "{} of {count} frames arrived, {staged} were sent, none arrived for {} s; dropped by the sender {:?}, by the \
                     receiver {:?}",
                    check.received,
                    PATIENCE.as_secs(),
                    from.dropped(),
                    to.dropped()
                );
            } else {
                std::thread::yield_now();
            }
        }
        Ok(Passed { count, time: started.elapsed(), large })
    }

    /// Passes frames until one has arrived: the path is there. Those before it may be lost.
    ///
    /// # Errors
    ///
    /// None arrives.
    pub fn wait_for_path(series: Series, from: &mut Vm, to: &mut Vm) -> Result<()> {
        // Strangers to everything that follows.
        let series = Series { id: series.id | 0x80, ..series };
        let mut check = Check::new(series, from.pairs());
        check.may_lose = true;
        let mut frame = Vec::new();
        let started = Instant::now();
        let mut number = 0;
        loop {
            for queue in 0..from.pairs() {
                let metadata = series.write(number, 0, &mut frame);
                from.stage(queue, &frame, metadata)?;
                number += 1;
            }
            from.flush();
            // What is still on its way is taken in before anything else begins.
            let until = Instant::now() + Duration::from_millis(50);
            while Instant::now() < until {
                to.receive(|packet| check.accept(packet).map(drop))?;
                from.flush();
                from.mend()?;
                to.mend()?;
                std::thread::yield_now();
            }
            if check.received > 0 {
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                bail!("nothing passes: {} frames were sent; {} | {}", number, from.describe(), to.describe());
            }
        }
    }
}
