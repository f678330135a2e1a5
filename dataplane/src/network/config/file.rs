//! Reading a file, and finding the line of what is wrong in it.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

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

/// A TOML text, of which it is known where everything stands.
pub(crate) struct Document<'a> {
    text: &'a str,
    file: &'a Path,
    table: Spanned<DeTable<'a>>,
}

impl<'a> Document<'a> {
    /// Takes a text apart. `file` is named in errors.
    pub(crate) fn parse(text: &'a str, file: &'a Path) -> Result<Self, Bad> {
        match DeTable::parse(text) {
            Ok(table) => Ok(Self { text, file, table }),
            Err(error) => Err(wrong(text, file, &error)),
        }
    }

    /// What it says under those of its uppermost keys that `fits` takes.
    pub(crate) fn read<T: DeserializeOwned>(&self, fits: impl Fn(&str) -> bool) -> Result<T, Bad> {
        let mut table = self.table.clone();
        for (key, _) in self.keys().filter(|(key, _)| !fits(key)) {
            table.as_mut().remove(key);
        }
        T::deserialize(Deserializer::from(table)).map_err(|error| wrong(self.text, self.file, &error))
    }

    /// Its uppermost keys.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&str, usize)> {
        self.table.as_ref().keys().map(|key| (key.get_ref().as_ref(), line_of(self.text, key.span().start)))
    }

    /// The problem with the line that it is about.
    pub(crate) fn locate(&self, problem: Problem) -> Bad {
        let line = self.span_of(&problem).map_or(1, |span| line_of(self.text, span.start));
        Bad { file: self.file.to_owned(), line, reason: problem.reason }
    }

    /// Where the problem's place is, or as much of the way to it as exists.
    fn span_of(&self, problem: &Problem) -> Option<Range<usize>> {
        let (first, rest) = problem.place.split_first()?;
        let Part::Key(key) = first else { return None };
        let mut value = self.table.get_ref().get(*key)?;
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
}

impl Config {
    /// Reads and checks a configuration. `file` is named in errors.
    ///
    /// # Errors
    ///
    /// What is not TOML, not a configuration, or does not fit together.
    pub fn from_toml(text: &str, file: &Path) -> Result<Self, Bad> {
        let document = Document::parse(text, file)?;
        let config: Self = document.read(|_| true)?;
        config.check().map_err(|problem| document.locate(problem))?;
        Ok(config)
    }
}

fn wrong(text: &str, file: &Path, error: &toml::de::Error) -> Bad {
    let line = error.span().map_or(1, |span| line_of(text, span.start));
    Bad { file: file.to_owned(), line, reason: error.message().replace('\n', "; ") }
}

/// The line, from 1, on which the byte at `offset` lies.
fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}
