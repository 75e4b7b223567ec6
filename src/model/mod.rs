//! What a model computes, read from its config.json and held against its tensors: one description for every device.
//!
//! A decoder-only transformer is an embedding, a row of blocks, a norm and a head. A block is
//!
//! ```text
//! a = norm(x);  q, k, v = linear(a);  o = attention(rotate(q), rotate(k), v);  h = x + linear(o)
//! m = norm(h);  u = act(gate(m)) * up(m), or act(up(m));                       y = h + down(u)
//! ```
//!
//! with `m = norm(x)` where the two halves run in parallel. What differs between architectures is data: the table in
//! `architectures.rs`. An [`Architecture`] has been checked against the checkpoint: every tensor it names is there, in
//! the shape it says, as floats.

mod architectures;
mod config;
mod rotary;

use std::ops::Bound;
use std::path::PathBuf;

use serde_json::Value;

use crate::checkpoint::{Checkpoint, Tensor, shown, shown_path};
use crate::dtype::Dtype;

use architectures::{Names, ROWS, Row, Window};
use config::Config;
pub use rotary::Rotary;

/// Why a model cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no config.json beside the weights.
    #[error("there is no config.json beside {}", shown_path(_0))]
    NoConfig(PathBuf),
    /// Nobody taught this program to run it.
    #[error(
        "{_0} is not supported by the forward pass (supported: {})",
        supported()
    )]
    Unsupported(String),
    /// config.json cannot be right.
    #[error("config.json: {_0}")]
    Config(String),
    /// config.json and the tensors disagree.
    #[error("{}: tensor {} {problem}", shown_path(file), shown(tensor))]
    Tensor {
        /// The file of weights, or where it should have been.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong with it.
        problem: String,
    },
}

fn supported() -> String {
    let names: Vec<_> = ROWS.iter().map(|row| row.model_type).collect();
    names.join(", ")
}

/// How a hidden state is normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// By its root mean square (arXiv 1910.07467); one weight a feature.
    Rms,
    /// By its mean and deviation (arXiv 1607.06450); a weight and a bias a feature.
    Layer,
}

/// How queries, keys and values come out of the hidden state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projections {
    /// A matrix each.
    Separate,
    /// One matrix, whose rows go head by head: its query, its key, its value.
    Interleaved,
}

/// The shape of the feed-forward part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mlp {
    /// `down(act(gate(x)) * up(x))`.
    Gated,
    /// `down(act(up(x)))`.
    Plain,
}

/// The nonlinearity of the feed-forward part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + exp(-x))`.
    Silu,
    /// `x Phi(x)` with the normal distribution's `Phi`.
    Gelu,
    /// The same, by a hyperbolic tangent.
    GeluTanh,
}

/// What a model computes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Architecture {
    /// As config.json calls it.
    pub model_type: &'static str,
    /// Features of the residual stream.
    pub hidden_size: usize,
    /// Tokens it knows; rows of the embedding.
    pub vocab_size: usize,
    /// Decoder blocks.
    pub blocks: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// Features between the two halves of the MLP.
    pub intermediate_size: usize,
    /// How queries, keys and values are made.
    pub projections: Projections,
    /// Whether each head of the queries and keys is normalised, before it turns.
    pub head_norms: bool,
    /// How they turn.
    pub rotary: Rotary,
    /// The longest context it was made for, where config.json says.
    pub max_context: Option<usize>,
    /// The norms.
    pub norm: NormKind,
    /// What the norms add to the variance.
    pub epsilon: f64,
    /// The MLP.
    pub mlp: Mlp,
    /// Its nonlinearity.
    pub activation: Activation,
    /// Whether the MLP reads what attention read.
    pub parallel: bool,
    /// Whether the embedding is the head, too.
    pub tied: bool,
    /// The first block that attends to the last few tokens only, and to how many.
    window: Option<(usize, usize)>,
    bias: Biases,
    prefix: &'static str,
    head: &'static str,
    names: &'static Names,
}

#[derive(Clone, Copy, Debug)]
struct Biases {
    attention: bool,
    output: bool,
    mlp: bool,
}

/// One of the four inputs of linear layers in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// What queries, keys and values are made of, `[tokens, hidden_size]`.
    Attention,
    /// What the heads found, `[tokens, heads * head_dim]`.
    Output,
    /// What gate and up read, `[tokens, hidden_size]`.
    Mlp,
    /// What down reads, `[tokens, intermediate_size]`.
    Down,
}

impl Site {
    /// All of them, in the order in which a block comes to them.
    pub const ALL: [Self; 4] = [Self::Attention, Self::Output, Self::Mlp, Self::Down];
}

/// A linear layer: the names of its tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linear {
    /// `[out_features, in_features]`.
    pub weight: String,
    /// `[out_features]`.
    pub bias: Option<String>,
    /// Rows of the weight.
    pub out_features: usize,
    /// Columns of the weight.
    pub in_features: usize,
}

/// A norm: the names of its tensors, all `[len]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NormTensors {
    /// The factors.
    pub weight: String,
    /// The summands of [`NormKind::Layer`].
    pub bias: Option<String>,
    /// Features.
    pub len: usize,
}

/// The tensors of one block.
#[derive(Clone, Debug)]
pub struct Block {
    /// Before attention.
    pub attention_norm: NormTensors,
    /// One for [`Projections::Interleaved`], else queries, keys, values.
    pub projections: Vec<Linear>,
    /// Of queries and keys.
    pub head_norms: Option<[NormTensors; 2]>,
    /// After attention.
    pub output: Linear,
    /// Before the MLP.
    pub mlp_norm: NormTensors,
    /// Gate and up, or up alone.
    pub up: Vec<Linear>,
    /// Back to the residual stream.
    pub down: Linear,
    /// How many tokens back it attends, itself included.
    pub window: Option<usize>,
}

impl Block {
    /// The layers that read the input at `site`.
    #[must_use]
    pub fn readers(&self, site: Site) -> &[Linear] {
        match site {
            Site::Attention => &self.projections,
            Site::Output => std::slice::from_ref(&self.output),
            Site::Mlp => &self.up,
            Site::Down => std::slice::from_ref(&self.down),
        }
    }

    fn linears(&self) -> impl Iterator<Item = &Linear> {
        Site::ALL.into_iter().flat_map(|site| self.readers(site))
    }

    fn norms(&self) -> impl Iterator<Item = &NormTensors> {
        [&self.attention_norm, &self.mlp_norm]
            .into_iter()
            .chain(self.head_norms.iter().flatten())
    }
}

impl Architecture {
    /// Reads what a checkpoint computes, and checks that its tensors fit.
    ///
    /// # Errors
    /// Every variant of [`Error`].
    pub fn of(checkpoint: &Checkpoint) -> Result<Self, Error> {
        let file = checkpoint.source.weights().path().to_path_buf();
        let config = checkpoint.config.as_ref().ok_or(Error::NoConfig(file))?;
        let model_type = checkpoint
            .model_type()
            .ok_or_else(|| Error::Config("model_type is missing".to_owned()))?;
        let row = ROWS
            .iter()
            .find(|row| row.model_type == model_type)
            .ok_or_else(|| Error::Unsupported(format!("model_type {}", shown(model_type))))?;
        if config.has("quantization_config") {
            return Err(Error::Unsupported("a quantised checkpoint".to_owned()));
        }
        let mut architecture = Self::read(row, &Config::new(config.json()))?;
        // A model saved without its head has no prefix before its tensors either.
        let bare = format!("{}.weight", row.names.embedding);
        if checkpoint.tensors().any(|(_, tensor)| tensor.name == bare) {
            architecture.prefix = "";
        }
        let has = |module: &&&str| {
            let name = format!("{module}.weight");
            checkpoint.tensors().any(|(_, tensor)| tensor.name == name)
        };
        if let Some(head) = row.names.head.iter().find(has) {
            architecture.head = head;
        }
        architecture.check(checkpoint)?;
        Ok(architecture)
    }

    fn read(row: &'static Row, config: &Config<'_>) -> Result<Self, Error> {
        let hidden_size = config.size("hidden_size")?;
        let blocks = config.size("num_hidden_layers")?;
        let heads = config.size("num_attention_heads")?;
        let kv_heads = config.size_or("num_key_value_heads", Some(heads))?;
        let kv_heads = match row.projections {
            Projections::Separate => kv_heads,
            Projections::Interleaved => heads,
        };
        if !heads.is_multiple_of(kv_heads) {
            return Err(Error::Config(format!(
                "num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}"
            )));
        }
        let own_dim = config.get("head_dim").is_some();
        if !own_dim && !hidden_size.is_multiple_of(heads) {
            return Err(Error::Config(format!(
                "hidden_size {hidden_size} is not a multiple of num_attention_heads {heads}, and there is no head_dim"
            )));
        }
        let head_dim = config.size_or("head_dim", Some(hidden_size / heads))?;
        let activation = match config.word("hidden_act") {
            None => row.activation,
            Some("silu" | "swish") => Activation::Silu,
            Some("gelu") => Activation::Gelu,
            Some("gelu_new" | "gelu_fast" | "gelu_pytorch_tanh") => Activation::GeluTanh,
            Some(other) => {
                return Err(Error::Unsupported(format!("hidden_act {}", shown(other))));
            }
        };
        let max_context = match config.get("max_position_embeddings") {
            Some(_) => Some(config.size("max_position_embeddings")?),
            None => None,
        };
        let parallel = match row.parallel {
            true => config.flag_or("use_parallel_residual", true)?,
            false => false,
        };
        Ok(Self {
            model_type: row.model_type,
            hidden_size,
            vocab_size: config.size("vocab_size")?,
            blocks,
            heads,
            kv_heads,
            head_dim,
            intermediate_size: config.size("intermediate_size")?,
            projections: row.projections,
            head_norms: row.head_norms,
            rotary: Rotary::read(config, head_dim, row.rotary_fraction)?,
            max_context,
            norm: row.norm,
            epsilon: config.number_or(row.epsilon.0, row.epsilon.1)?,
            mlp: row.mlp,
            activation,
            parallel,
            tied: config.flag_or("tie_word_embeddings", false)?,
            window: window(row, config)?,
            bias: Biases {
                attention: row.bias.attention.read(config)?,
                output: row.bias.output.read(config)?,
                mlp: row.bias.mlp.read(config)?,
            },
            prefix: row.names.prefix,
            head: row.names.head[0],
            names: row.names,
        })
    }

    /// The embedding, `[vocab_size, hidden_size]`.
    #[must_use]
    pub fn embedding(&self) -> String {
        format!("{}{}.weight", self.prefix, self.names.embedding)
    }

    /// The norm before the head.
    #[must_use]
    pub fn final_norm(&self) -> NormTensors {
        self.norm_tensors(self.prefix, self.names.final_norm)
    }

    /// The head, `[vocab_size, hidden_size]`: the embedding again where they are tied.
    #[must_use]
    pub fn head(&self) -> String {
        if self.tied {
            self.embedding()
        } else {
            format!("{}.weight", self.head)
        }
    }

    /// The tensors of block `index`, which is below [`blocks`](Self::blocks).
    #[must_use]
    pub fn block(&self, index: usize) -> Block {
        let names = self.names;
        let prefix = format!("{}layers.{index}.", self.prefix);
        let linear = |module: &str, bias, out_features, in_features| Linear {
            weight: format!("{prefix}{module}.weight"),
            bias: bool::then(bias, || format!("{prefix}{module}.bias")),
            out_features,
            in_features,
        };
        let (queries, keys) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let rows: &[usize] = match self.projections {
            Projections::Separate => &[queries, keys, keys],
            Projections::Interleaved => &[3 * queries],
        };
        let projections = names.projections.iter().zip(rows);
        let head_norm = |module| NormTensors {
            weight: format!("{prefix}{module}.weight"),
            bias: None,
            len: self.head_dim,
        };
        Block {
            attention_norm: self.norm_tensors(&prefix, names.attention_norm),
            projections: projections
                .map(|(module, &rows)| linear(module, self.bias.attention, rows, self.hidden_size))
                .collect(),
            head_norms: self.head_norms.then(|| names.head_norms.map(head_norm)),
            output: linear(names.output, self.bias.output, self.hidden_size, queries),
            mlp_norm: self.norm_tensors(&prefix, names.mlp_norm),
            up: names
                .up
                .iter()
                .map(|module| {
                    linear(
                        module,
                        self.bias.mlp,
                        self.intermediate_size,
                        self.hidden_size,
                    )
                })
                .collect(),
            down: linear(
                names.down,
                self.bias.mlp,
                self.hidden_size,
                self.intermediate_size,
            ),
            window: self
                .window
                .and_then(|(first, size)| (index >= first).then_some(size)),
        }
    }

    fn norm_tensors(&self, prefix: &str, module: &str) -> NormTensors {
        NormTensors {
            weight: format!("{prefix}{module}.weight"),
            bias: (self.norm == NormKind::Layer).then(|| format!("{prefix}{module}.bias")),
            len: self.hidden_size,
        }
    }

    /// Holds config.json against the headers of the checkpoint.
    fn check(&self, checkpoint: &Checkpoint) -> Result<(), Error> {
        let tensors = Tensors::of(checkpoint);
        tensors.check(&self.embedding(), &[self.vocab_size, self.hidden_size])?;
        tensors.check_norm(&self.final_norm())?;
        let blocks = (0..self.blocks).map(|index| self.block(index));
        for block in blocks {
            for norm in block.norms() {
                tensors.check_norm(norm)?;
            }
            for linear in block.linears() {
                tensors.check(&linear.weight, &[linear.out_features, linear.in_features])?;
                match &linear.bias {
                    Some(bias) => tensors.check(bias, &[linear.out_features])?,
                    None => tensors.check_absent(&linear.weight.replace(".weight", ".bias"))?,
                }
            }
        }
        let beyond = format!("{}layers.{}.", self.prefix, self.blocks);
        if let Some(tensor) = tensors.starting_with(&beyond) {
            return Err(tensors.wrong(
                tensor,
                format!(
                    "is of a block that config.json does not count: num_hidden_layers is {}",
                    self.blocks
                ),
            ));
        }
        Ok(())
    }

    /// Checks that there is a head, which only losses need.
    ///
    /// # Errors
    /// [`Error::Tensor`] for a head that is missing or of another shape.
    pub fn check_head(&self, checkpoint: &Checkpoint) -> Result<(), Error> {
        Tensors::of(checkpoint).check(&self.head(), &[self.vocab_size, self.hidden_size])
    }
}

/// The first block that attends to the last few tokens only, and to how many.
fn window(row: &Row, config: &Config<'_>) -> Result<Option<(usize, usize)>, Error> {
    if config.get("sliding_window").is_none() {
        return Ok(None);
    }
    let first = match row.window {
        Window::Everywhere => 0,
        Window::Above if config.flag_or("use_sliding_window", false)? => {
            let first = config.get("max_window_layers").and_then(Value::as_u64);
            first.map_or(28, |first| usize::try_from(first).unwrap_or(usize::MAX))
        }
        Window::Above | Window::None => return Ok(None),
    };
    Ok(Some((first, config.size("sliding_window")?)))
}

/// The headers of a checkpoint, to look names up in.
struct Tensors<'a> {
    checkpoint: &'a Checkpoint,
    by_name: std::collections::BTreeMap<&'a str, (usize, &'a Tensor)>,
}

impl<'a> Tensors<'a> {
    fn of(checkpoint: &'a Checkpoint) -> Self {
        let by_name = checkpoint
            .tensors()
            .map(|(shard, tensor)| (tensor.name.as_str(), (shard, tensor)))
            .collect();
        Self {
            checkpoint,
            by_name,
        }
    }

    fn wrong(&self, tensor: &str, problem: String) -> Error {
        let file = match self.by_name.get(tensor) {
            Some((shard, _)) => self.checkpoint.shards[*shard].path.clone(),
            None => self.checkpoint.source.weights().path().to_path_buf(),
        };
        Error::Tensor {
            file,
            tensor: tensor.to_owned(),
            problem,
        }
    }

    fn check(&self, name: &str, shape: &[usize]) -> Result<(), Error> {
        match self.by_name.get(name) {
            None => Err(self.wrong(name, "is missing".to_owned())),
            Some((_, tensor)) if tensor.shape != shape => Err(self.wrong(
                name,
                format!(
                    "is {:?}, by config.json it would be {shape:?}",
                    tensor.shape
                ),
            )),
            Some((_, tensor)) if Dtype::from_stored(tensor.dtype).is_none() => {
                let problem = format!("is {:?}, only BF16, F16 and F32 can be run", tensor.dtype);
                Err(self.wrong(name, problem))
            }
            Some(_) => Ok(()),
        }
    }

    fn check_norm(&self, norm: &NormTensors) -> Result<(), Error> {
        self.check(&norm.weight, &[norm.len])?;
        match &norm.bias {
            Some(bias) => self.check(bias, &[norm.len]),
            None => Ok(()),
        }
    }

    fn check_absent(&self, name: &str) -> Result<(), Error> {
        match self.by_name.get(name) {
            Some(_) => Err(self.wrong(
                name,
                "is a bias that config.json knows nothing of".to_owned(),
            )),
            None => Ok(()),
        }
    }

    fn starting_with(&self, prefix: &str) -> Option<&'a str> {
        let mut from = self
            .by_name
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from.next()
            .map(|(name, _)| *name)
            .filter(|name| name.starts_with(prefix))
    }
}
