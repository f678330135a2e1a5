//! A thread of another process, instruction by instruction.

#![expect(unsafe_code, reason = "ptrace has no wrapper")]

use std::collections::BTreeSet;
use std::io::Error;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, Result, ensure};
use libc::{c_int, c_uint};

/// Gives the addresses of all instructions of a thread until `stop`. Counts in `steps`. The calling thread is its tracer.
pub(crate) fn follow(thread: i32, steps: &AtomicU64, stop: &AtomicBool) -> Result<BTreeSet<u64>> {
    control(libc::PTRACE_SEIZE, thread, 0).context("it needs the right to trace (CAP_SYS_PTRACE)")?;
    control(libc::PTRACE_INTERRUPT, thread, 0)?;
    wait(thread)?;
    let mut addresses = BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        addresses.insert(next_instruction(thread)?);
        steps.fetch_add(1, Ordering::Relaxed);
        control(libc::PTRACE_SINGLESTEP, thread, 0)?;
        wait(thread)?;
    }
    control(libc::PTRACE_DETACH, thread, 0)?;
    Ok(addresses)
}

fn control(request: c_uint, thread: i32, data: usize) -> Result<()> {
    // SAFETY: none of the requests made here has the kernel write to memory of ours.
    let done = unsafe { libc::ptrace(request, thread, 0_usize, data) };
    ensure!(done == 0, "ptrace request {request:#x}: {}", Error::last_os_error());
    Ok(())
}

/// Waits until the thread stands still.
fn wait(thread: i32) -> Result<()> {
    let mut status: c_int = 0;
    // SAFETY: `status` is written to during the call alone.
    let waited = unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL) };
    ensure!(waited == thread, "waiting for a traced thread: {}", Error::last_os_error());
    ensure!(libc::WIFSTOPPED(status), "the traced thread ended");
    Ok(())
}

/// The address of the instruction that the thread is about to do.
fn next_instruction(thread: i32) -> Result<u64> {
    let place = std::mem::offset_of!(libc::user, regs) + std::mem::offset_of!(libc::user_regs_struct, rip);
    // SAFETY: this request has the kernel read a register, and write to memory of the C library's own.
    let address = unsafe { libc::ptrace(libc::PTRACE_PEEKUSER, thread, place, 0_usize) };
    // An instruction of a program is nowhere near the top of the address space, where errors are.
    ensure!(address != -1, "reading a register: {}", Error::last_os_error());
    Ok(address.cast_unsigned())
}
