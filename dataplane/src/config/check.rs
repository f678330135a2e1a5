//! Whether settings can be, and whether they are those that run.

use std::time::Duration;

use hugemem::PageChoice;

use super::{
    ByteSize, Config, ControlSocket, CoreList, DEFAULT_BURST, DEFAULT_FLOWS, DEFAULT_HOLD, DEFAULT_MEMORY,
    DEFAULT_SWITCH_MEMORY, EngineConfig, LARGEST_BURST, LONGEST_HOLD, MOST_ENGINES, MOST_FLOWS, PageSize, Settings,
};
use crate::network;
use crate::network::config::Problem;
use crate::port::NamedSpec;
use crate::port::open::names::{claim, names, own_name};

/// Memory that nothing fits in if there is less.
const LEAST_MEMORY: usize = 4 << 20;

impl Settings {
    /// Checks everything that can be checked without touching a device. `available` are the cores that this process may
    /// run on, ascending.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(super) fn check(self, network: network::Config, available: &CoreList) -> Result<Config, Problem> {
        let says = |key, reason: String| Err(Problem::of_all(key, reason));
        network.check()?;
        let control = self.control.unwrap_or_default();
        // Ports can still be added when there is a control socket.
        if self.ports.is_empty() && control == ControlSocket::None {
            let reason = "no ports are given, and without a control socket none can be added; give two, such as --port 0000:00:03.0 \
                          --port 0000:00:04.0";
            return says("ports", reason.to_owned());
        }
        let names = check_names(&self.ports)?;
        let pairs = pairs(&self.ports, &names, &network)?;
        if let Some(core) = self.cores.iter().flat_map(CoreList::iter).find(|core| !available.contains(*core)) {
            return says("cores", format!("core {core} is not available; this process may run on {available}"));
        }
        let cores = self.cores.unwrap_or_else(|| available.without_first());
        if !network.is_empty() && cores.len() > MOST_ENGINES {
            return says("cores", format!("a switch runs on at most {MOST_ENGINES} cores, not {}", cores.len()));
        }
        // Networks may come later.
        let default = DEFAULT_MEMORY.saturating_add(DEFAULT_SWITCH_MEMORY.saturating_mul(cores.len()));
        let memory = self.memory.map_or(default, |size| size.0);
        if memory < LEAST_MEMORY {
            return says("memory", format!("{memory} bytes of packet memory are too little; give at least 4M"));
        }
        let burst = self.burst.unwrap_or(DEFAULT_BURST);
        if !(1..=LARGEST_BURST).contains(&burst) {
            return says("burst", format!("a burst of {burst} packets is not possible; give 1 to {LARGEST_BURST}"));
        }
        let page = match (self.no_huge, self.huge_page_size) {
            (Some(true), None | Some(PageSize(PageChoice::Size4K))) => PageChoice::Size4K,
            (Some(true), Some(_)) => {
                let reason = "no-huge and a huge-page-size other than 4K contradict each other; give one of them";
                return says("no-huge", reason.to_owned());
            }
            (_, Some(PageSize(page))) => page,
            (_, None) => PageChoice::Auto,
        };
        let hold = self.hold_milliseconds.map_or(DEFAULT_HOLD, Duration::from_millis);
        if hold > LONGEST_HOLD {
            let reason = format!(
                "hold-milliseconds = {} is too long; give at most {}",
                hold.as_millis(),
                LONGEST_HOLD.as_millis()
            );
            return says("hold-milliseconds", reason);
        }
        let flows = self.flows.unwrap_or(DEFAULT_FLOWS);
        if !(1..=MOST_FLOWS).contains(&flows) {
            return says("flows", format!("a table of {flows} flows is not possible; give 1 to {MOST_FLOWS}"));
        }
        Ok(Config {
            ports: self.ports,
            names,
            pairs,
            ports_of_file: false,
            network,
            flows,
            cores,
            memory,
            page,
            node: self.node,
            engine: EngineConfig {
                burst,
                poll: self.poll.unwrap_or_default(),
                hold,
                scheduler: self.scheduler.unwrap_or_default(),
            },
            control,
            control_group: self.control_group,
            metrics: self.metrics,
            duration: self.seconds.map(Duration::from_secs),
            dma: self.dma,
            dma_threshold: self.dma_threshold.unwrap_or_default(),
            json: self.json.unwrap_or(false),
        })
    }

    /// Checks that what is said about that which stays for as long as mirach runs is what `running` says. What is not said stays as it is.
    ///
    /// # Errors
    /// The first thing that would have to change.
    pub(super) fn check_unchanged(&self, running: &Config) -> Result<(), Problem> {
        let Config { engine, .. } = running;
        let page = |page| match page {
            PageChoice::Size1G => "1G",
            PageChoice::Size2M => "2M",
            PageChoice::Size4K => "4K",
            _ => "the default",
        };
        let stays: [(&'static str, bool, String); 16] = [
            ("cores", differs(self.cores.as_ref(), &running.cores), running.cores.to_string()),
            ("memory", differs(self.memory, ByteSize(running.memory)), ByteSize(running.memory).to_string()),
            ("huge-page-size", differs(self.huge_page_size, PageSize(running.page)), page(running.page).to_owned()),
            ("no-huge", differs(self.no_huge, running.page == PageChoice::Size4K), page(running.page).to_owned()),
            ("node", self.node.is_some() && self.node != running.node, said(running.node)),
            ("poll", differs(self.poll, engine.poll), engine.poll.to_string()),
            ("burst", differs(self.burst, engine.burst), engine.burst.to_string()),
            ("scheduler", differs(self.scheduler, engine.scheduler), engine.scheduler.to_string()),
            (
                "hold-milliseconds",
                differs(self.hold_milliseconds.map(Duration::from_millis), engine.hold),
                engine.hold.as_millis().to_string(),
            ),
            ("flows", differs(self.flows, running.flows), running.flows.to_string()),
            ("control", differs(self.control.as_ref(), &running.control), "another socket".to_owned()),
            (
                "control-group",
                self.control_group.is_some() && self.control_group != running.control_group,
                said(running.control_group.as_ref()),
            ),
            ("dma", self.dma.is_some() && self.dma != running.dma, said(running.dma.as_ref())),
            ("dma-threshold", differs(self.dma_threshold, running.dma_threshold), running.dma_threshold.to_string()),
            ("metrics", self.metrics.is_some() && self.metrics != running.metrics, "another address".to_owned()),
            (
                "seconds",
                self.seconds.is_some() && self.seconds.map(Duration::from_secs) != running.duration,
                said(running.duration.map(|duration| duration.as_secs())),
            ),
        ];
        match stays.into_iter().find(|(_, changes, _)| *changes) {
            Some((key, _, now)) => {
                let reason = format!(
                    "`{key}` cannot change while mirach runs (it runs with {now}); leave it as it was, or restart mirach"
                );
                Err(Problem::of_all(key, reason))
            }
            None => Ok(()),
        }
    }
}

/// Something is said, and is not what there is.
fn differs<T: PartialEq>(said: Option<T>, is: T) -> bool {
    said.is_some_and(|said| said != is)
}

fn said(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

/// The names of all ports, which are unlike each other, as are the things that they stand for.
fn check_names(ports: &[NamedSpec]) -> Result<Vec<String>, Problem> {
    let same = |index: usize, what: &dyn Fn(&NamedSpec) -> Option<String>| {
        let own = ports.get(index).and_then(what)?;
        ports.iter().take(index).any(|other| what(other).as_ref() == Some(&own)).then_some(own)
    };
    for index in 0..ports.len() {
        if let Some(thing) = same(index, &|port| claim(&port.spec)) {
            let reason = format!("{thing} is given twice; a port can only be opened once");
            return Err(Problem::of_one("ports", index, reason));
        }
        if let Some(name) = same(index, &own_name) {
            let reason = format!("the name {name} is given to two ports; choose another for one of them");
            return Err(Problem::of_one("ports", index, reason));
        }
    }
    names(ports, [].iter()).map_err(|error| Problem::of_all("ports", error.to_string()))
}

/// The ports that are joined, by their places.
fn pairs(ports: &[NamedSpec], names: &[String], network: &network::Config) -> Result<Vec<[usize; 2]>, Problem> {
    let unnamed = |(_, name): &(usize, &String)| !network.names_port(name);
    let rest: Vec<usize> = names.iter().enumerate().filter(unnamed).map(|(index, _)| index).collect();
    let (pairs, left) = rest.as_chunks::<2>();
    let (Some(left), count) = (left.first(), rest.len()) else { return Ok(pairs.to_vec()) };
    let last = ports.get(*left).map(ToString::to_string).unwrap_or_default();
    let (which, otherwise) = match network.is_empty() {
        true => ("", ""),
        false => (" that no section names", ", or name it in a [[port]] section"),
    };
    let reason = format!(
        "{count} ports{which} cannot be joined pairwise, port {last} is left over; add one (`--port null` discards what it is \
         sent){otherwise}"
    );
    Err(Problem::of_one("ports", *left, reason))
}
