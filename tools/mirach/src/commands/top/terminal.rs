//! The terminal: taken over while the view is on, and given back whatever happens.

use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

use crate::output;

/// The other screen, without a cursor and without lines that wrap.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &[u8] = b"\x1b[?7h\x1b[?25h\x1b[?1049l";
/// What a terminal that does not tell its size is taken for.
const USUAL: Size = Size { columns: 80, rows: 24 };
/// The letter that Ctrl-C is.
const INTERRUPT: u8 = 3;

/// Characters that fit on the terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

/// What was pressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Key {
    Quit,
    Other,
}

/// The terminal, taken over. Dropping this gives it back, and a panic does so before it says anything.
pub(super) struct Terminal {
    before: Termios,
    /// Nobody presses keys any more.
    deaf: bool,
}

impl Terminal {
    /// Takes it over.
    pub(super) fn take() -> io::Result<Self> {
        if !isatty(io::stdout()) {
            return Err(io::Error::other("stdout is none"));
        }
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        let terminal = Self { before, deaf: false };
        let (modes, say) = (terminal.before.clone(), std::panic::take_hook());
        std::panic::set_hook(Box::new(move |panic| {
            restore(&modes);
            say(panic);
        }));
        output::bytes(ENTER)?;
        Ok(terminal)
    }

    /// How large it is now.
    pub(super) fn size(&self) -> Size {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                Size { columns: size.ws_col.into(), rows: size.ws_row.into() }
            }
            _ => USUAL,
        }
    }

    /// Shows lines from the uppermost on, and nothing else.
    pub(super) fn show(&mut self, lines: &[String]) -> io::Result<()> {
        let mut text = String::from("\x1b[H");
        for (number, line) in lines.iter().enumerate() {
            if number > 0 {
                text.push_str("\r\n");
            }
            text.push_str(line);
            text.push_str("\x1b[K");
        }
        text.push_str("\x1b[J");
        output::bytes(text.as_bytes())
    }

    /// Waits so long for a key at most.
    pub(super) fn key(&mut self, time: Duration) -> io::Result<Option<Key>> {
        let timeout =
            Timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(1), tv_nsec: time.subsec_nanos().into() };
        let stdin = io::stdin();
        let mut files = [PollFd::new(&stdin, if self.deaf { PollFlags::empty() } else { PollFlags::IN })];
        match poll(&mut files, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(None),
            Ok(_) if self.deaf => {
                // It is gone, which would be told at once again and again.
                std::thread::sleep(time);
                return Ok(None);
            }
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut letters = [0; 64];
        match rustix::io::read(&stdin, &mut letters) {
            Ok(0) => self.deaf = true,
            Ok(count) => {
                let quit = letters.iter().take(count).any(|letter| matches!(*letter, b'q' | b'Q' | INTERRUPT));
                return Ok(Some(if quit { Key::Quit } else { Key::Other }));
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(None)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore(&self.before);
    }
}

fn restore(before: &Termios) {
    // There is nobody left to be told when this fails.
    let _ = output::bytes(LEAVE);
    let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
}
