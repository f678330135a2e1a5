//! An open device with its engines.

use anyhow::{Context, Result, anyhow, ensure};
use drivers::copy_engine::{CopyDevice, CopyEngine, Started};

use super::rig::{Plan, Rig};
use super::user::User;
use crate::conformance::Outcome;

/// Bytes that a user has to copy from, and as many to copy to, when nothing else is said.
const BYTES: usize = 1 << 20;

/// A device, open and started.
pub(super) struct Bench<'rig, R: Rig> {
    pub(super) rig: &'rig mut R,
    pub(super) device: R::Device,
    pub(super) engines: Vec<Started<R::Device>>,
    users: u8,
}

impl<'rig, R: Rig> Bench<'rig, R> {
    /// Opens and starts a device with one engine.
    pub(super) fn new(rig: &'rig mut R) -> Result<Self> {
        Self::with(rig, &Plan::default())
    }

    /// Opens and starts the device.
    pub(super) fn with(rig: &'rig mut R, plan: &Plan) -> Result<Self> {
        rig.prepare().context("prepare the device")?;
        let device = rig.open(plan).context("open the device")?;
        let mut bench = Self { rig, device, engines: Vec::new(), users: 0 };
        bench.start()?;
        let (wanted, there) = (usize::from(plan.engines), bench.engines.len());
        ensure!(wanted == there, "{there} engines started instead of {wanted}");
        Ok(bench)
    }

    pub(super) fn start(&mut self) -> Result<()> {
        self.engines = self.device.start().context("start the device")?;
        Ok(())
    }

    /// A user with memory that the device can reach.
    pub(super) fn user(&mut self) -> Result<User> {
        self.user_of(BYTES)
    }

    /// A user with so many bytes to copy from, and to copy to, that the device can reach.
    pub(super) fn user_of(&mut self, bytes: usize) -> Result<User> {
        self.users += 1;
        let regions = [self.rig.memory(bytes + 4096)?, self.rig.memory(bytes + 4096)?];
        for region in &regions {
            self.device.map(region)?;
        }
        User::new(regions, bytes, self.users)
    }

    /// The first engine.
    pub(super) fn engine(&mut self) -> Result<&mut <R::Device as CopyDevice>::Engine> {
        self.engines.first_mut().map(|(engine, _)| engine).context("the device has no engine")
    }

    /// The length above which a job of this user is of no use to the checks: some pieces.
    pub(super) fn longest(&mut self, user: &User) -> Result<usize> {
        let engine = self.engine()?;
        let (unit, longest) = (engine.unit() as usize, engine.longest() as usize);
        Ok((4 * unit).min(longest).min(user.longest() / 3))
    }

    /// Stops the device, whose one engine had this user.
    pub(super) fn stop(&mut self, user: &mut User) -> Result<()> {
        let engines = self.engines.drain(..).map(|(engine, _)| engine).collect();
        let mut back = Vec::new();
        let outcome = self.device.stop(engines, &mut back);
        user.take(&back)?;
        Ok(outcome?)
    }

    /// The device is healthy, has no job any more and nothing against its driver, nothing was written beside all jobs, and nothing is left behind.
    pub(super) fn close(mut self, users: impl IntoIterator<Item = User>) -> Result<Outcome> {
        let users: Vec<User> = users.into_iter().collect();
        self.device.check().context("the device is not healthy at the end")?;
        let engines = self.engines.drain(..).map(|(engine, _)| engine).collect();
        let mut back = Vec::new();
        self.device.stop(engines, &mut back).context("stop the device")?;
        ensure!(back.is_empty(), "{} jobs were still there at the end", back.len());
        self.end(users, |_| false)
    }

    /// As [`Bench::close`] for a device that was stopped, or is not to be. Complaints that are `foreseen` are none.
    pub(super) fn end(self, users: impl IntoIterator<Item = User>, foreseen: impl Fn(&str) -> bool) -> Result<Outcome> {
        let Self { rig, device, engines, .. } = self;
        for mut user in users {
            user.check_all()?;
        }
        let complaints: Vec<String> = rig.complaints()?.into_iter().filter(|complaint| !foreseen(complaint)).collect();
        ensure!(complaints.is_empty(), "the device complains: {}", complaints.join("; "));
        drop((device, engines));
        let leftovers = rig.leftovers()?;
        ensure!(leftovers.is_empty(), "left behind: {}", leftovers.join("; "));
        Ok(Outcome::Passed)
    }

    /// What the device says when it is asked about its health, which is to be an error that names it.
    pub(super) fn ailment(&mut self) -> Result<String> {
        let name = self.device.name().to_owned();
        let error = self.device.check().err().ok_or_else(|| anyhow!("the device is said to be healthy"))?.to_string();
        ensure!(error.contains(&name), "the error does not name {name}: {error}");
        Ok(error)
    }
}
