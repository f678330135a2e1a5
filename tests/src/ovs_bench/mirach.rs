//! mirach, with its two ports in one network.

use anyhow::Result;

use crate::peer_bench::device::{Device, Listener, is_engine, mirach};

/// Starts it.
///
/// # Errors
/// It was not built, or ends.
pub fn start(huge_pages: bool) -> Result<Box<dyn Device>> {
    let device = Listener::start("mirach", is_engine, |_, sockets| {
        let mut command = mirach(huge_pages)?;
        command.args(["--control", "none"]);
        for socket in sockets {
            command.arg("--port").arg(format!("vhost-user={},client=off", socket.display()));
        }
        Ok(command)
    })?;
    Ok(Box::new(device))
}
