//! Reading a file, and finding the line of what is wrong in it.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check::{Part, Problem};
use super::model::Config;

/// A file that cannot be a configuration.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}:{line}: {reason}", file.display())]
pub struct Bad {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1. It is 1 when the file as a whole is meant.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl Config {
    /// Reads and checks a configuration. `file` is named in errors.
    ///
    /// # Errors
    ///
    /// What is not TOML, not a configuration, or does not fit together.
    pub fn from_toml(text: &str, file: &Path) -> Result<Self, Bad> {
        let bad = |span: Option<Range<usize>>, reason: String| Bad {
            file: file.to_owned(),
            line: span.map_or(1, |span| line_of(text, span.start)),
            reason,
        };
        let wrong = |error: toml::de::Error| bad(error.span(), error.message().replace('\n', "; "));
        let config: Self = toml::from_str(text).map_err(wrong)?;
        match config.check() {
            Ok(()) => Ok(config),
            Err(problem) => {
                let document = DeTable::parse(text).map_err(wrong)?;
                Err(bad(span_of(&document, &problem), problem.reason))
            }
        }
    }
}

/// The line, from 1, on which the byte at `offset` lies.
fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// Where the problem's place is, or as much of the way to it as exists.
fn span_of(document: &Spanned<DeTable<'_>>, problem: &Problem) -> Option<Range<usize>> {
    let (first, rest) = problem.place.split_first()?;
    let Part::Key(key) = first else { return None };
    let mut value = document.get_ref().get(*key)?;
    for part in rest {
        let next = match (part, value.get_ref()) {
            (Part::Key(key), DeValue::Table(table)) => table.get(*key),
            (Part::Index(index), DeValue::Array(array)) => array.get(*index),
            _ => None,
        };
        match next {
            Some(next) => value = next,
            None => break,
        }
    }
    Some(value.span())
}
