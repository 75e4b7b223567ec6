//! The tensors of a description: linear layers, norms and lists of numbers, by name and by how they are stored.

use crate::names::rules::Layout;

/// How a hidden state is normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NormKind {
    /// By its root mean square (arXiv 1910.07467); one weight a feature.
    Rms,
    /// By its mean and deviation (arXiv 1607.06450); a weight a feature, and perhaps a bias.
    Layer,
}

/// How the factors of heads are stored that each have their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadFactors {
    /// `[heads, features]`.
    Matrix,
    /// `[heads * features]`.
    List,
    /// A tensor each, in whose name the number of the head stands for `*`.
    Tensors,
}

/// A norm: the names of its tensors.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NormTensors {
    pub(crate) kind: NormKind,
    /// The factors, `[features]`, or `[heads, features]` where each head has its own; none where they are all 1.
    pub(crate) weight: Option<String>,
    /// What the factors are more than the tensor says.
    pub(crate) weight_offset: f32,
    /// The summands of [`NormKind::Layer`], in the shape of the factors.
    pub(crate) bias: Option<String>,
    pub(crate) features: usize,
    /// Heads with factors of their own; 1 where there is one list for all.
    pub(crate) heads: usize,
    /// How these are stored.
    pub(crate) head_factors: HeadFactors,
    /// What is added to the variance.
    pub(crate) epsilon: f64,
}

/// A tensor that is a list of numbers, which the host computes with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vector {
    pub(crate) tensor: String,
    /// The shape that it is stored in; the numbers are row-major.
    pub(crate) shape: Vec<usize>,
}

impl Vector {
    /// The same as a tensor without dimensions, which holds one number.
    pub(super) fn scalar(self) -> Self {
        let shape = Vec::new();
        Self { shape, ..self }
    }

    /// A tensor of one dimension.
    pub(super) fn list(tensor: String, len: usize) -> Self {
        let shape = vec![len];
        Self { tensor, shape }
    }
}

impl NormTensors {
    /// A norm with one weight a feature and no bias, which is what most are.
    pub(super) fn plain(kind: NormKind, weight: String, features: usize, epsilon: f64) -> Self {
        Self {
            kind,
            weight: Some(weight),
            weight_offset: 0.0,
            bias: None,
            features,
            heads: 1,
            head_factors: HeadFactors::Matrix,
            epsilon,
        }
    }

    /// The shape of its tensors.
    pub(super) fn stored_shape(&self) -> Vec<usize> {
        match self.heads {
            1 => vec![self.features],
            heads => match self.head_factors {
                HeadFactors::Matrix => vec![heads, self.features],
                HeadFactors::List => vec![heads * self.features],
                HeadFactors::Tensors => vec![self.features],
            },
        }
    }

    /// The tensors under a name of its weight or bias: mostly this one.
    pub(crate) fn tensors(&self, name: &str) -> Vec<String> {
        match self.head_factors {
            HeadFactors::Tensors => {
                let of_head = |head: usize| name.replace('*', &head.to_string());
                (0..self.heads).map(of_head).collect()
            }
            _ => vec![name.to_owned()],
        }
    }
}

/// A linear layer, `x W^T + b`, and where its weights are stored: its own tensor, or a part of one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Linear {
    pub(crate) in_features: usize,
    pub(crate) out_features: usize,
    /// The tensor with its weights.
    pub(crate) weight: String,
    /// The tensor with its bias.
    pub(crate) bias: Option<String>,
    /// Which way the tensor lies.
    pub(crate) layout: Layout,
    /// Output features of the whole tensor: more than `out_features` where several layers are stored as one.
    pub(crate) stored_features: usize,
    /// The first of them that is this layer's, of the weights and of the bias.
    pub(crate) first_feature: usize,
    /// How many side by side are this layer's before others are.
    pub(crate) feature_run: usize,
    /// From the first of these to the first of the next that are: 2 where two layers take turns.
    pub(crate) feature_step: usize,
    /// What its output, with the bias, is multiplied by.
    pub(crate) scale: f32,
    /// Which of several matrices, where the tensor has three dimensions and the first counts them.
    pub(crate) slice: Option<Slice>,
}

/// One matrix of a tensor with several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) index: usize,
    pub(crate) count: usize,
    /// Whether they are stored one below the other as one matrix, and not in a dimension of their own.
    pub(crate) stacked: bool,
}

impl Linear {
    /// A layer with a tensor of its own, `[out_features, in_features]`.
    pub(super) fn of_its_own(
        weight: String,
        bias: Option<String>,
        [out_features, in_features]: [usize; 2],
    ) -> Self {
        Self {
            in_features,
            out_features,
            weight,
            bias,
            layout: Layout::OutIn,
            stored_features: out_features,
            first_feature: 0,
            feature_run: 1,
            feature_step: 1,
            scale: 1.0,
            slice: None,
        }
    }

    /// The layers that it holds, one behind the other, by their output features.
    pub(super) fn split<const N: usize>(&self, features: [usize; N]) -> [Self; N] {
        let mut first_feature = self.first_feature;
        features.map(|out_features| {
            let part = Self {
                out_features,
                first_feature,
                ..self.clone()
            };
            first_feature += out_features;
            part
        })
    }

    /// The shape of the tensor that it is stored in.
    pub(super) fn stored_shape(&self) -> Vec<usize> {
        let [first, last] = match self.layout {
            Layout::OutIn => [self.stored_features, self.in_features],
            Layout::InOut => [self.in_features, self.stored_features],
        };
        match self.slice {
            Some(slice) if slice.stacked => vec![slice.count * first, last],
            Some(slice) => vec![slice.count, first, last],
            None => vec![first, last],
        }
    }

    /// The features of every `step` from the `first` on, `run` of them each time, of the whole.
    pub(super) fn runs(&self, [first, run, step]: [usize; 3]) -> Self {
        Self {
            out_features: self.stored_features / step * run,
            first_feature: first,
            feature_run: run,
            feature_step: step,
            ..self.clone()
        }
    }

    /// Where a feature of this layer is stored among those of the whole.
    pub(crate) fn stored_feature(&self, feature: usize) -> usize {
        let run = self.feature_run;
        self.first_feature + feature / run * self.feature_step + feature % run
    }

    /// How many features from this one on are stored side by side.
    pub(crate) fn side_by_side(&self, feature: usize) -> usize {
        if self.feature_run == self.feature_step {
            self.out_features - feature
        } else {
            self.feature_run - feature % self.feature_run
        }
    }

    /// The same with its output multiplied.
    pub(super) fn times(self, scale: f64) -> Self {
        let scale = scale as f32;
        Self { scale, ..self }
    }

    /// The shape of the tensor that its bias is stored in.
    pub(super) fn stored_bias_shape(&self) -> Vec<usize> {
        let matrices = self.slice.map(|slice| slice.count);
        matrices.into_iter().chain([self.stored_features]).collect()
    }
}
