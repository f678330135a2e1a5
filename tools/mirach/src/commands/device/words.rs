//! What is said to the cards on stdin while they run.

use std::io::BufRead;
use std::sync::mpsc::{Receiver, channel};

use models::ixgbe::Fault;

/// One line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Word {
    /// Misbehave from now on, or behave again; which card, or all.
    Fault(Option<Fault>, Option<usize>),
    /// Plug the cable in, or pull it; of which card, or all.
    Link(bool, Option<usize>),
    /// Print what is known.
    Show,
    /// End.
    Quit,
}

/// Reads one line; `None` for an empty one.
pub(super) fn parse(line: &str) -> Result<Option<Word>, String> {
    const HELP: &str = "give `fault NAME|none [CARD]`, `link up|down [CARD]`, `show` or `quit`";
    let mut words = line.split_whitespace();
    let Some(first) = words.next() else { return Ok(None) };
    let rest: Vec<&str> = words.collect();
    let card = |text: Option<&&str>| -> Result<Option<usize>, String> {
        text.map(|text| text.parse().map_err(|_| format!("`{text}` is no number of a card: {HELP}"))).transpose()
    };
    match (first, rest.as_slice()) {
        ("fault", [name, rest @ ..]) if rest.len() < 2 => {
            let fault = match *name {
                "none" => None,
                name => Some(name.parse::<Fault>().map_err(|error| error.to_string())?),
            };
            Ok(Some(Word::Fault(fault, card(rest.first())?)))
        }
        ("link", [state @ ("up" | "down"), rest @ ..]) if rest.len() < 2 => {
            Ok(Some(Word::Link(*state == "up", card(rest.first())?)))
        }
        ("show", []) => Ok(Some(Word::Show)),
        ("quit", []) => Ok(Some(Word::Quit)),
        _ => Err(format!("`{}` is not understood: {HELP}", line.trim())),
    }
}

/// The lines of stdin as they come. Its end is no word: it ends nothing.
pub(super) fn listen() -> std::io::Result<Receiver<Result<Word, String>>> {
    let (sender, receiver) = channel();
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        for line in std::io::stdin().lock().split(b'\n').map_while(Result::ok) {
            let Some(word) = parse(&String::from_utf8_lossy(&line)).transpose() else { continue };
            if sender.send(word).is_err() {
                break;
            }
        }
    })?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_understood_or_explained() {
        assert_eq!(parse(" show "), Ok(Some(Word::Show)));
        assert_eq!(parse(""), Ok(None));
        assert_eq!(parse("link down 1"), Ok(Some(Word::Link(false, Some(1)))));
        assert_eq!(parse("fault none"), Ok(Some(Word::Fault(None, None))));
        assert_eq!(parse("fault done-never 0"), Ok(Some(Word::Fault(Some(Fault::DoneNever), Some(0)))));
        for line in ["link", "link sideways", "link up x", "link up 1 2", "show all", "hello"] {
            assert!(parse(line).is_err_and(|error| error.contains("`show`")), "{line}");
        }
        assert!(parse("fault nosuch").is_err_and(|error| error.contains("done-never")));
    }
}
