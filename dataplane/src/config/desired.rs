//! All that the user wants, and where it is written.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::{Schema, schema_for};

use super::{Config, ControlSocket, CoreList, Settings};
use crate::network;
use crate::network::config::{Bad, Document, Problem};

/// What the user wants cannot be. The text says what is wrong and what would be right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot read the configuration: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file's content is wrong.
    #[error(transparent)]
    File(#[from] Bad),
    /// What is wrong stands in no file.
    #[error("{}", .0.reason)]
    Said(Problem),
}

/// What the user wants a forwarder to be: ports, engines, and the switch.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Desired {
    /// Ports and engines.
    pub(crate) settings: Settings,
    /// The switch.
    pub(crate) network: network::Config,
    /// It is about the switch alone: the ports that there are stay.
    pub(crate) ports_stay: bool,
    /// What was said with flags, for which no line of the file is to blame.
    flags: Settings,
    source: Option<Arc<Source>>,
}

/// A file as it was read.
#[derive(PartialEq, Debug)]
struct Source {
    file: PathBuf,
    text: String,
}

impl Desired {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, is no TOML, or has an unknown key or an impossible value; the text names file and line.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let read = std::fs::read_to_string(file);
        let text = read.map_err(|source| ConfigError::Read { path: file.to_owned(), source })?;
        Ok(Self::from_toml(&text, file)?)
    }

    /// Reads the content of a file; `file` is for messages.
    ///
    /// # Errors
    /// As [`Desired::read`], but for reading. What stands in the sections fits together.
    pub fn from_toml(text: &str, file: &Path) -> Result<Self, Bad> {
        let document = Document::parse(text, file)?;
        let (keys, sections) = (properties(&schema_for!(Settings)), properties(&network::config::schema()));
        if let Some((key, line)) = document.keys().find(|(key, _)| !keys.contains(*key) && !sections.contains(*key)) {
            let list = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(", ");
            let reason = format!("there is no key `{key}`; keys: {}; sections: {}", list(keys), list(sections));
            return Err(Bad { file: file.to_owned(), line, reason });
        }
        let desired = Self {
            settings: document.read(|key| keys.contains(key))?,
            network: document.read(|key| sections.contains(key))?,
            source: Some(Arc::new(Source { file: file.to_owned(), text: text.to_owned() })),
            ..Self::default()
        };
        desired.network.check().map_err(|problem| document.locate(problem))?;
        Ok(desired)
    }

    /// The switch alone; the ports that there are stay.
    #[must_use]
    pub fn from_network(network: network::Config) -> Self {
        Self { network, ports_stay: true, ..Self::default() }
    }

    /// Ports and engines alone.
    #[must_use]
    pub fn from_flags(flags: Settings) -> Self {
        Self::default().under(flags)
    }

    /// This, with what `flags` say over it.
    #[must_use]
    pub fn under(self, flags: Settings) -> Self {
        Self { settings: flags.clone().over(self.settings), flags: flags.over(self.flags), ..self }
    }

    /// Checks everything that can be checked without touching a device. `available` are the cores that this process may
    /// run on, ascending.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, available: &CoreList) -> Result<Config, ConfigError> {
        self.checked(self.settings.clone(), available)
    }

    fn checked(&self, settings: Settings, available: &CoreList) -> Result<Config, ConfigError> {
        let config = settings.check(self.network.clone(), available).map_err(|problem| self.locate(problem))?;
        let ports_of_file = self.source.is_some() && !self.flags.says("ports");
        Ok(Config { ports_of_file, ..config })
    }

    /// As [`Desired::check`], for a forwarder that runs already, as `running` says.
    ///
    /// # Errors
    /// The first thing that is wrong, or cannot change any more.
    pub(crate) fn check_against(&self, running: &Config) -> Result<Config, ConfigError> {
        self.settings.check_unchanged(running).map_err(|problem| self.locate(problem))?;
        // It has its cores, and may be without ports.
        let settings = Settings {
            cores: Some(running.cores.clone()),
            control: Some(ControlSocket::Usual),
            ..self.settings.clone()
        };
        self.checked(settings, &running.cores)
    }

    /// The problem with the line that it is about, if it stands in the file.
    pub(crate) fn locate(&self, problem: Problem) -> ConfigError {
        let said = problem.key().is_some_and(|key| self.flags.says(key));
        let Some(source) = self.source.as_ref().filter(|_| !said) else { return ConfigError::Said(problem) };
        match Document::parse(&source.text, &source.file) {
            Ok(document) => document.locate(problem).into(),
            Err(bad) => bad.into(),
        }
    }
}

/// The JSON schema of a file: the keys of [`Settings`] and the sections of [`network::Config`].
#[must_use]
pub fn schema() -> Schema {
    let (mut whole, part) = (schema_for!(Settings), network::config::schema());
    whole.insert("title".to_owned(), "Configuration of mirach".into());
    let description = "Ports and engines, and the networks of the switch.";
    whole.insert("description".to_owned(), description.into());
    for key in ["properties", "$defs"] {
        let Some(more) = part.get(key).and_then(serde_json::Value::as_object) else { continue };
        let entry = whole.ensure_object().entry(key).or_insert_with(|| serde_json::json!({}));
        if let Some(object) = entry.as_object_mut() {
            object.extend(more.clone());
        }
    }
    whole
}

fn properties(schema: &Schema) -> BTreeSet<String> {
    let properties = schema.get("properties").and_then(serde_json::Value::as_object);
    properties.into_iter().flat_map(|properties| properties.keys().cloned()).collect()
}
