//! What a family of architectures is: the model types it goes by, and how it reads a checkpoint.

use serde_json::Value;

use super::architecture::Architecture;
use super::config::Config;
use super::error::Error;
use super::headers::Headers;

/// Architectures that differ in a few numbers and names.
pub(super) struct Family {
    /// `model_type` in config.json.
    pub(super) model_types: &'static [&'static str],
    /// Says what a checkpoint computes. The tensors it names are checked afterwards.
    pub(super) describe: fn(&ModelFiles<'_>) -> Result<Architecture, Error>,
}

/// What a family reads: config.json, and which tensors there are.
pub(super) struct ModelFiles<'a> {
    /// The one of the family's model types that it is.
    pub(super) model_type: &'static str,
    pub(super) config: Config<'a>,
    pub(super) headers: &'a Headers<'a>,
}

impl<'a> ModelFiles<'a> {
    /// The same, with the values of `defaults` for keys that config.json lacks.
    pub(super) fn over(&self, defaults: &'a Value) -> Self {
        Self {
            model_type: self.model_type,
            config: self.config.over(defaults),
            headers: self.headers,
        }
    }

    /// The number of blocks, at most as many as there are tensors, as each has some of its own.
    pub(super) fn blocks(&self) -> Result<usize, Error> {
        let key = "num_hidden_layers";
        let blocks = self.config.size(key)?;
        let tensors = self.headers.len();
        if blocks > tensors {
            return Err(Error::Config(format!(
                "{key} is {blocks}, and the checkpoint has only {tensors} tensors"
            )));
        }
        Ok(blocks)
    }

    /// What names begin with: `usual`; nothing in a model that was saved without its head; and the place of the text's half
    /// in one that knows pictures, too, as transformers 4 and 5 write it.
    pub(super) fn prefix(&self, usual: &str, embedding: &str) -> String {
        let places = ["", usual, "language_model.model.", "model.language_model."];
        let is_there = |place: &&str| self.headers.has(&format!("{place}{embedding}.weight"));
        places
            .into_iter()
            .find(is_there)
            .unwrap_or(usual)
            .to_owned()
    }

    /// The one of these prefixes under which there is an embedding; the first if there is none.
    pub(super) fn prefix_of(&self, prefixes: &[&'static str], embedding: &str) -> &'static str {
        let has = |prefix: &&&str| self.headers.has(&format!("{prefix}{embedding}.weight"));
        prefixes.iter().find(has).unwrap_or(&prefixes[0])
    }

    /// The tensor of the head: that of the first module of these which is there, or `embedding` where they are tied.
    pub(super) fn head(&self, modules: &[&str], embedding: &str) -> Result<String, Error> {
        self.head_of(modules, embedding, false)
    }

    /// The same for families whose heads are tied unless config.json says otherwise.
    pub(super) fn tied_head(&self, modules: &[&str], embedding: &str) -> Result<String, Error> {
        self.head_of(modules, embedding, true)
    }

    fn head_of(&self, modules: &[&str], embedding: &str, tied: bool) -> Result<String, Error> {
        if self.config.flag_or("tie_word_embeddings", tied)? {
            return Ok(embedding.to_owned());
        }
        let names: Vec<_> = modules
            .iter()
            .map(|module| format!("{module}.weight"))
            .collect();
        let there = names.iter().find(|name| self.headers.has(name));
        Ok(there.unwrap_or(&names[0]).clone())
    }
}
