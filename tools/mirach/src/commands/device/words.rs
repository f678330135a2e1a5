//! What is said to the cards on stdin while they run.

use std::io::BufRead;
use std::sync::mpsc::{Receiver, channel};

/// One line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Word {
    /// Something that the kind of card knows: `fault NAME`; for which card, or all.
    Deed { verb: String, object: String, card: Option<usize> },
    /// Print what is known.
    Show,
    /// End.
    Quit,
}

/// Reads one line; `None` for an empty one. `help` tells what could have been said.
fn parse(line: &str, help: &str) -> Result<Option<Word>, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let deed = |verb: &str, object: &str, card: Option<usize>| Word::Deed {
        verb: verb.to_owned(),
        object: object.to_owned(),
        card,
    };
    Ok(match words.as_slice() {
        [] => None,
        ["show"] => Some(Word::Show),
        ["quit"] => Some(Word::Quit),
        [verb, object] => Some(deed(verb, object, None)),
        [verb, object, card] => {
            let number = card.parse().map_err(|_| format!("`{card}` is no number of a card: {help}"))?;
            Some(deed(verb, object, Some(number)))
        }
        _ => return Err(format!("`{}` is not understood: {help}", line.trim())),
    })
}

/// The lines of stdin as they come. Its end is no word: it ends nothing.
pub(super) fn listen(help: &'static str) -> std::io::Result<Receiver<Result<Word, String>>> {
    let (sender, receiver) = channel();
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        for line in std::io::stdin().lock().split(b'\n').map_while(Result::ok) {
            let Some(word) = parse(&String::from_utf8_lossy(&line), help).transpose() else { continue };
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
        let parse = |line| parse(line, "give `show`");
        let deed = |verb: &str, object: &str, card| {
            Ok(Some(Word::Deed { verb: verb.to_owned(), object: object.to_owned(), card }))
        };
        assert_eq!(parse(" show "), Ok(Some(Word::Show)));
        assert_eq!(parse(""), Ok(None));
        assert_eq!(parse("link down 1"), deed("link", "down", Some(1)));
        assert_eq!(parse("fault none"), deed("fault", "none", None));
        for line in ["link", "link up x", "link up 1 2", "hello"] {
            assert!(parse(line).is_err_and(|error| error.contains("`show`")), "{line}");
        }
    }
}
