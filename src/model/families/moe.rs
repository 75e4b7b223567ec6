//! What mixtures of experts have in common: how experts are stored, and which keys describe their router.

use serde_json::Value;

use super::common;
use crate::model::activation::Activation;
use crate::model::architecture::Architecture;
use crate::model::config::Config;
use crate::model::error::Error;
use crate::model::experts::{ExpertGroups, Experts, Router, Scores, SharedExpert};
use crate::model::family::ModelFiles;
use crate::model::feed_forward::FeedForward;
use crate::model::mlp::Mlp;
use crate::model::tensors::{Linear, Slice, Vector};
use crate::targets::Layout;

/// Experts of one size, each a gated multilayer perceptron without biases.
pub(super) struct ExpertSizes {
    pub(super) count: usize,
    pub(super) hidden_size: usize,
    pub(super) intermediate_size: usize,
    pub(super) activation: Activation,
}

impl ExpertSizes {
    /// A number of experts, with the other sizes.
    pub(super) fn read(
        files: &ModelFiles<'_>,
        count: &str,
        intermediate_size: &str,
        activation: Activation,
    ) -> Result<Self, Error> {
        let config = &files.config;
        Ok(Self {
            count: config.size(count)?,
            hidden_size: config.size("hidden_size")?,
            intermediate_size: config.size(intermediate_size)?,
            activation,
        })
    }

    /// The experts of a block's `module`: in two tensors, `experts.gate_up_proj` and `experts.down_proj`, if these are
    /// there, as transformers 5 keeps them in memory; else with a tensor for each of the three `layers` of each expert, as
    /// it saves them.
    pub(super) fn of_block(
        &self,
        files: &ModelFiles<'_>,
        module: &str,
        layers: [&str; 3],
    ) -> Result<Vec<Mlp>, Error> {
        let fused = ["gate_up_proj", "down_proj"].map(|name| format!("{module}.experts.{name}"));
        if files.headers.has(&fused[0]) {
            return self.fused(files, [&fused[0], &fused[1]]);
        }
        let [gate, up, down] = layers;
        let name = |expert: usize, layer| format!("{module}.experts.{expert}.{layer}.weight");
        // The last one is there, so a number of experts is at most a lie about those in between.
        files.headers.require(&name(self.count - 1, down))?;
        self.check_count(files)?;
        let linear = |expert, layer, shape| Linear::of_its_own(name(expert, layer), None, shape);
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let expert = |expert| Mlp {
            activation: self.activation,
            xielu: None,
            gate: Some(linear(expert, gate, [inner, hidden])),
            up: linear(expert, up, [inner, hidden]),
            down: linear(expert, down, [hidden, inner]),
        };
        Ok((0..self.count).map(expert).collect())
    }

    /// Experts in two tensors, `[experts, 2 * intermediate_size, hidden_size]` with gates before ups, and `[experts,
    /// hidden_size, intermediate_size]`.
    pub(super) fn fused(
        &self,
        files: &ModelFiles<'_>,
        [gate_up, down]: [&str; 2],
    ) -> Result<Vec<Mlp>, Error> {
        let (hidden, inner, count) = (self.hidden_size, self.intermediate_size, self.count);
        files.headers.check(gate_up, &[count, 2 * inner, hidden])?;
        files.headers.check(down, &[count, hidden, inner])?;
        let part = |index, tensor: &str, [out_features, in_features]: [usize; 2]| Linear {
            slice: Some(Slice {
                index,
                count,
                stacked: false,
            }),
            layout: Layout::OutIn,
            ..Linear::of_its_own(tensor.to_owned(), None, [out_features, in_features])
        };
        let half = |index, first_feature| Linear {
            stored_features: 2 * inner,
            first_feature,
            ..part(index, gate_up, [inner, hidden])
        };
        let expert = |index| Mlp {
            activation: self.activation,
            xielu: None,
            gate: Some(half(index, 0)),
            up: half(index, inner),
            down: part(index, down, [hidden, inner]),
        };
        Ok((0..count).map(expert).collect())
    }

    /// The same the other way round, `[experts, hidden_size, 2 * intermediate_size]` and `[experts, intermediate_size,
    /// hidden_size]`.
    pub(super) fn fused_in_out(
        &self,
        files: &ModelFiles<'_>,
        module: &str,
    ) -> Result<Vec<Mlp>, Error> {
        let (hidden, inner, count) = (self.hidden_size, self.intermediate_size, self.count);
        let [gate_up, down] = ["gate_up_proj", "down_proj"].map(|name| format!("{module}.{name}"));
        files.headers.check(&gate_up, &[count, hidden, 2 * inner])?;
        files.headers.check(&down, &[count, inner, hidden])?;
        let part = |index, tensor: &str, shape| Linear {
            slice: Some(Slice {
                index,
                count,
                stacked: false,
            }),
            layout: Layout::InOut,
            ..Linear::of_its_own(tensor.to_owned(), None, shape)
        };
        let expert = |index| {
            let [gate, up] = part(index, &gate_up, [2 * inner, hidden]).split([inner; 2]);
            Mlp {
                activation: self.activation,
                xielu: None,
                gate: Some(gate),
                up,
                down: part(index, &down, [hidden, inner]),
            }
        };
        Ok((0..count).map(expert).collect())
    }

    /// A router with a tensor of its own.
    pub(super) fn router(&self, config: &Config<'_>, weight: String) -> Result<Router, Error> {
        let chosen = config.size("num_experts_per_tok")?;
        if chosen > self.count {
            return Err(Error::Config(format!(
                "num_experts_per_tok is {chosen}, and there are {} experts",
                self.count
            )));
        }
        Ok(Router {
            layer: Linear::of_its_own(weight, None, [self.count, self.hidden_size]),
            scores: Scores::Softmax,
            correction: None,
            groups: None,
            chosen,
            normalised: true,
            sum_offset: 0.0,
            scale: 1.0,
        })
    }

    /// Refuses more experts than there are tensors, where each has some of its own.
    pub(super) fn check_count(&self, files: &ModelFiles<'_>) -> Result<(), Error> {
        let tensors = files.headers.len();
        if self.count > tensors {
            return Err(Error::Config(format!(
                "there are {} experts, and the checkpoint has only {tensors} tensors",
                self.count
            )));
        }
        Ok(())
    }
}

/// A gated multilayer perceptron without biases, in the names of Llama.
pub(super) fn gated(
    module: &str,
    activation: Activation,
    [intermediate_size, hidden_size]: [usize; 2],
) -> Mlp {
    let linear = |layer, shape| Linear::of_its_own(format!("{module}.{layer}.weight"), None, shape);
    Mlp {
        activation,
        xielu: None,
        gate: Some(linear("gate_proj", [intermediate_size, hidden_size])),
        up: linear("up_proj", [intermediate_size, hidden_size]),
        down: linear("down_proj", [hidden_size, intermediate_size]),
    }
}

/// Experts as a feed-forward part, without a shared one.
pub(super) fn feed_forward(
    router: Router,
    experts: Vec<Mlp>,
    shared: Option<SharedExpert>,
) -> FeedForward {
    FeedForward::Experts(Box::new(Experts {
        router,
        experts,
        shared,
        weighs_input: false,
    }))
}

/// Puts experts into some blocks of a description, `experts` of the block's number and of what its names begin with.
pub(super) fn put(
    architecture: &mut Architecture,
    sparse: impl Fn(usize) -> bool,
    experts: impl Fn(&str) -> Result<FeedForward, Error>,
) -> Result<(), Error> {
    for (index, block) in architecture.blocks.iter_mut().enumerate() {
        if sparse(index) {
            block.mlp = Some(experts(&format!("{}{index}.", architecture.block_prefix))?);
        }
    }
    Ok(())
}

/// Which blocks have experts by `mlp_only_layers` and `decoder_sparse_step`.
pub(super) fn sparse_blocks(config: &Config<'_>, blocks: usize) -> Result<Vec<bool>, Error> {
    // Qwen 3.5 has neither key, and experts everywhere.
    let step = config.size_or("decoder_sparse_step", Some(1))?;
    let dense: Vec<u64> = match config.get("mlp_only_layers") {
        None => Vec::new(),
        Some(layers) => {
            let numbers = layers.as_array().into_iter().flatten().map(Value::as_u64);
            numbers.collect::<Option<_>>().ok_or_else(|| {
                Error::Config("mlp_only_layers is not a list of numbers".to_owned())
            })?
        }
    };
    let sparse =
        |block: usize| !dense.contains(&(block as u64)) && (block + 1).is_multiple_of(step);
    Ok((0..blocks).map(sparse).collect())
}

/// `n_group` and `topk_group`, of which the best are open; none where all are.
pub(super) fn groups(
    config: &Config<'_>,
    experts: usize,
    chosen_experts: usize,
    judged_by: usize,
) -> Result<Option<ExpertGroups>, Error> {
    let count = config.size_or("n_group", Some(1))?;
    let chosen = config.size_or("topk_group", Some(count))?;
    if count == 1 || chosen == count {
        return Ok(None);
    }
    let size = experts / count;
    if !experts.is_multiple_of(count)
        || chosen > count
        || size < judged_by
        || chosen * size < chosen_experts
    {
        return Err(Error::Config(format!(
            "{chosen} of {count} groups of {experts} experts cannot give {chosen_experts} experts a token"
        )));
    }
    Ok(Some(ExpertGroups {
        count,
        chosen,
        judged_by,
    }))
}

/// The feed-forward part of DeepSeek 3, and of what was built in its likeness: sigmoids, a correction of the choice, groups
/// judged by their best two, and an expert for every token.
pub(super) fn with_correction(
    files: &ModelFiles<'_>,
    sizes: &ExpertSizes,
    block: &str,
) -> Result<FeedForward, Error> {
    let config = &files.config;
    let module = format!("{block}mlp");
    let router = sizes.router(config, format!("{module}.gate.weight"))?;
    let router = Router {
        scores: Scores::Sigmoid,
        correction: Some(Vector::list(
            format!("{module}.gate.e_score_correction_bias"),
            sizes.count,
        )),
        groups: groups(config, sizes.count, router.chosen, 2)?,
        normalised: config.flag("norm_topk_prob")?,
        scale: config.needed_number("routed_scaling_factor")?,
        ..router
    };
    let experts = sizes.of_block(files, &module, ["gate_proj", "up_proj", "down_proj"])?;
    Ok(feed_forward(
        router,
        experts,
        shared_experts(files, sizes, &module)?,
    ))
}

/// `n_shared_experts` experts for every token, stored as one.
pub(super) fn shared_experts(
    files: &ModelFiles<'_>,
    sizes: &ExpertSizes,
    module: &str,
) -> Result<Option<SharedExpert>, Error> {
    let count = common::count(&files.config, "n_shared_experts")?;
    if count == 0 {
        return Ok(None);
    }
    let width = count.saturating_mul(sizes.intermediate_size);
    let mlp = gated(
        &format!("{module}.shared_experts"),
        sizes.activation,
        [width, sizes.hidden_size],
    );
    Ok(Some(SharedExpert { mlp, gate: None }))
}
