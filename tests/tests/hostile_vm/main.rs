//! Hostile machines at one port of `mirach run`, under load, while two others talk to each other.
//!
//! Each case is one offence. After each of them the law has to hold: mirach runs and has not panicked, it has said what was wrong with which port and
//! queue, the bystanders lost no frame, everything that the offender had is given back, every frame is accounted for, and a
//! well-behaved machine finds the offender's port in working order.

mod bystanders;
mod changes;
mod engine;
mod files;
mod frames;
mod memory;
mod partner;
mod rings;
mod scene;
mod session;
mod signals;
mod translations;

use std::process::ExitCode;

use anyhow::{Context, Result};
use lab::hostile::Format;
use lab::suite::Suite;

use scene::{Case, Scene};

/// What an offender does.
type Offence = fn(&Case<'_>, Format) -> Result<()>;

fn main() -> ExitCode {
    if let Some(socket) = std::env::var_os(session::VICTIM) {
        return session::victim(socket.as_ref());
    }
    lab::leftovers::remove();
    if let Err(error) = lab::process::end_with_parent() {
        eprintln!("{error:#}: interrupted, this run would go on without its parent");
    }
    let mut suite = Suite::from_arguments();
    let mut scene: Option<Scene> = None;
    files::checks(&mut suite);
    let groups = [
        ("rings", rings::ALL),
        ("frames", frames::ALL),
        ("memory", memory::ALL),
        ("session", session::ALL),
        ("signals", signals::ALL),
        ("translations", translations::ALL),
        ("changes", changes::ALL),
    ];
    for (group, offences) in groups {
        for (name, offence) in offences {
            for format in Format::ALL {
                suite.check(&format!("{group}::{name}-{}", format.name()), || {
                    // After a case that failed others can still be told.
                    let mut now = match scene.take() {
                        Some(scene) => scene,
                        None => Scene::set().context("the scene")?,
                    };
                    now.case(|case| offence(case, format))?;
                    scene = Some(now);
                    Ok(())
                });
            }
        }
    }
    suite.check("bystanders-notice-pauses", || {
        scene.as_ref().context("there is no scene after the last case")?.notices_pauses()
    });
    suite.check("bystanders-lost-nothing", || scene.context("there is no scene after the last case")?.close());
    suite.finish()
}
