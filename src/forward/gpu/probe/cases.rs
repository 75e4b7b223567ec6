//! What the kernels are tried on, and what they should give: computed here in f64, by the plainest loops there are.
//!
//! Each entry point comes with every option that its uniform block has, and with two sizes at least. Sizes are more than the
//! lanes of a workgroup or than a tile, and no multiples of them.

mod attention;
mod products;
mod scans;

use super::case::{Case, doubles, values};
use crate::forward::kernels::{
    ActivationParams, CopyHeadsParams, ElementwiseParams, HeadsParams, LogSumExpParams, NormParams,
    RowsParams, SiteNormsParams,
};
use crate::model::Activation;

/// All of them.
pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(norms());
    all.extend(site_norms());
    all.extend(norms_of_heads());
    all.extend(rope());
    all.extend(copies());
    all.extend(attention::cases());
    all.extend(scans::cases());
    all.extend(activations());
    all.extend(rows());
    all.extend(elementwise());
    all.extend(log_sum_exps());
    all.extend(products::cases());
    all
}

/// Values divided by the root of their mean square; less their mean first, if they are centred.
fn normalised(x: &[f32], is_centred: bool, epsilon: f32) -> Vec<f64> {
    let count = x.len() as f64;
    let sum: f64 = x.iter().map(|&x| f64::from(x)).sum();
    let mean = if is_centred { sum / count } else { 0.0 };
    let centred: Vec<f64> = x.iter().map(|&x| f64::from(x) - mean).collect();
    let square = centred.iter().map(|x| x * x).sum::<f64>() / count;
    let root = (square + f64::from(epsilon)).sqrt();
    centred.iter().map(|x| x / root).collect()
}

fn norms() -> Vec<Case> {
    let mut all = Vec::new();
    for (tokens, features, epsilon) in [(5, 275, 1e-5), (3, 40, 0.25)] {
        let x = values(4, tokens * features);
        let (factors, summands) = (values(5, features), values(6, features));
        let params = NormParams {
            features: features as u32,
            epsilon,
        };
        for is_layer in [false, true] {
            let expected = x.chunks_exact(features).flat_map(|x| {
                let normed = normalised(x, is_layer, epsilon).into_iter();
                let scaled = normed.zip(&factors).zip(&summands);
                scaled.map(|((x, &factor), &summand)| {
                    x * f64::from(factor) + if is_layer { f64::from(summand) } else { 0.0 }
                })
            });
            let expected = expected.collect();
            let case = if is_layer {
                Case::new("layer_norm", "LayerNorm").with(3, &summands)
            } else {
                Case::new("rms_norm", "RMSNorm")
            };
            let case = case.with(1, &x).with(2, &factors).writes(4, expected);
            all.push(case.run(&params, (tokens, 1)));
        }
    }
    all
}

fn site_norms() -> Vec<Case> {
    // The rows of one window, and some behind those of another.
    let of = |([row, tokens], features, first, squared): ([usize; 2], usize, usize, bool)| {
        let x = values(19, (row + tokens) * features);
        let before = vec![0.5; first + features];
        let mut expected = doubles(&before);
        for column in 0..features {
            let values = x[row * features..].iter().skip(column).step_by(features);
            let values = values.map(|&x| f64::from(x));
            expected[first + column] = values.map(|x| if squared { x * x } else { x }).sum();
        }
        let params = SiteNormsParams {
            row: row as u32,
            tokens: tokens as u32,
            features: features as u32,
            first: first as u32,
            squared: u32::from(squared),
        };
        let what = if squared {
            "column norms"
        } else {
            "column sums"
        };
        Case::new("site_norms", what)
            .with(1, &x)
            .changes(2, &before, expected)
            .run(&params, (features.div_ceil(64), 1))
    };
    [([0, 67], 150, 0, true), ([4, 30], 70, 3, false)]
        .map(of)
        .into()
}

/// Heads of so many features, `stride` apart, from `first` on in the `width` features of each token.
struct HeadsPlace {
    tokens: usize,
    heads: usize,
    features: usize,
    first: usize,
    stride: usize,
    width: usize,
}

impl HeadsPlace {
    /// What a kernel is told of it.
    fn params(&self) -> HeadsParams {
        HeadsParams {
            head_dim: self.features as u32,
            first: self.first as u32,
            token_stride: self.width as u32,
            head_stride: self.stride as u32,
            ..HeadsParams::default()
        }
    }

    /// Where the first feature of a head lies.
    fn at(&self, token: usize, head: usize) -> usize {
        token * self.width + self.first + head * self.stride
    }
}

/// Heads on end, and some with gaps between them and others around them.
const PLACES: [HeadsPlace; 2] = [
    HeadsPlace {
        tokens: 5,
        heads: 2,
        features: 20,
        first: 0,
        stride: 20,
        width: 40,
    },
    HeadsPlace {
        tokens: 3,
        heads: 3,
        features: 70,
        first: 7,
        stride: 75,
        width: 240,
    },
];

fn norms_of_heads() -> Vec<Case> {
    let of = |(place, is_centred, epsilon): (&HeadsPlace, bool, f32)| {
        let features = place.features;
        let x = values(7, place.tokens * place.width);
        // Each head has factors and summands of its own where it is centred.
        let (factors, summands) = (values(8, 3 * features), values(31, 3 * features));
        let stride = if is_centred { features } else { 0 };
        let mut expected = doubles(&x);
        for (token, head) in (0..place.tokens).flat_map(|t| (0..place.heads).map(move |h| (t, h))) {
            let at = place.at(token, head);
            let normed = normalised(&x[at..at + features], is_centred, epsilon);
            for (i, normed) in normed.into_iter().enumerate() {
                let own = head * stride + i;
                let summand = if is_centred { summands[own] } else { 0.0 };
                expected[at + i] = normed * f64::from(factors[own]) + f64::from(summand);
            }
        }
        let params = HeadsParams {
            centred: u32::from(is_centred),
            weight_stride: stride as u32,
            epsilon,
            ..place.params()
        };
        let what = if is_centred {
            "LayerNorm of heads"
        } else {
            "RMSNorm of heads"
        };
        Case::new("normalise_heads", what)
            .with(2, &factors)
            .with(3, &summands)
            .changes(4, &x, expected)
            .run(&params, (place.heads, place.tokens))
    };
    [(&PLACES[0], false, 1e-5), (&PLACES[1], true, 0.25)]
        .map(of)
        .into()
}

fn rope() -> Vec<Case> {
    // Some features stay.
    let of = |(place, pairs, is_interleaved, position): (&HeadsPlace, usize, bool, usize)| {
        let x = values(9, place.tokens * place.width);
        let rotations = values(10, (position + place.tokens) * pairs * 2);
        let mut expected = doubles(&x);
        for (token, head) in (0..place.tokens).flat_map(|t| (0..place.heads).map(move |h| (t, h))) {
            for pair in 0..pairs {
                let at = place.at(token, head) + if is_interleaved { 2 * pair } else { pair };
                let other = at + if is_interleaved { 1 } else { pairs };
                let rotation = &rotations[2 * ((position + token) * pairs + pair)..];
                let (cos, sin) = (f64::from(rotation[0]), f64::from(rotation[1]));
                let (a, b) = (expected[at], expected[other]);
                expected[at] = a * cos - b * sin;
                expected[other] = b * cos + a * sin;
            }
        }
        let params = HeadsParams {
            pairs: pairs as u32,
            interleaved: u32::from(is_interleaved),
            position: position as u32,
            ..place.params()
        };
        let what = if is_interleaved {
            "rotary embedding of neighbours"
        } else {
            "rotary embedding of halves"
        };
        Case::new("apply_rope", what)
            .with(1, &rotations)
            .changes(4, &x, expected)
            .run(&params, (place.heads, place.tokens))
    };
    [(&PLACES[0], 10, false, 0), (&PLACES[1], 33, true, 7)]
        .map(of)
        .into()
}

fn copies() -> Vec<Case> {
    let (tokens, heads) = (5, 3);
    // The last 15 of each head's 20 features, one head after the other; then 70 features for all heads, among others.
    let of = |params: CopyHeadsParams| {
        let x = values(11, tokens * 130);
        let before = values(12, tokens * 300);
        let mut expected = doubles(&before);
        for (token, head) in (0..tokens).flat_map(|t| (0..heads).map(move |h| (t, h))) {
            let from = params.from_first as usize
                + token * params.from_token_stride as usize
                + head * params.from_head_stride as usize;
            let to = params.to_first as usize
                + token * params.to_token_stride as usize
                + head * params.to_head_stride as usize;
            for i in 0..params.features as usize {
                expected[to + i] = f64::from(x[from + i]);
            }
        }
        Case::new("copy_heads", "copy of heads")
            .with(1, &x)
            .changes(2, &before, expected)
            .run(&params, (heads, tokens))
    };
    [
        CopyHeadsParams {
            features: 15,
            from_first: 5,
            from_token_stride: 60,
            from_head_stride: 20,
            to_first: 0,
            to_token_stride: 45,
            to_head_stride: 15,
        },
        CopyHeadsParams {
            features: 70,
            from_first: 0,
            from_token_stride: 130,
            from_head_stride: 0,
            to_first: 9,
            to_token_stride: 300,
            to_head_stride: 80,
        },
    ]
    .map(of)
    .into()
}

/// Every nonlinearity, with a gate and without.
const ACTIVATIONS: [Activation; 15] = [
    Activation::Silu,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Relu,
    Activation::ReluSquared,
    Activation::GeluSigmoid,
    Activation::Sigmoid,
    Activation::Tanh,
    Activation::Identity,
    Activation::LeakyRelu,
    Activation::Mish,
    Activation::Relu6,
    Activation::HardSwish,
    Activation::Xielu,
    Activation::ClampedSwiglu,
];

/// The learned numbers of xIELU: `a`, `b`, `c`, `e`.
const XIELU: [f32; 4] = [0.75, 0.5, 1.25, -0.125];

fn activated(activation: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::Silu => x * sigmoid(x),
        Activation::Gelu => 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Activation::GeluTanh => {
            let root = (2.0 / std::f64::consts::PI).sqrt();
            0.5 * x * (1.0 + (root * (x + 0.044715 * x.powi(3))).tanh())
        }
        Activation::Relu => x.max(0.0),
        Activation::ReluSquared => x.max(0.0).powi(2),
        Activation::ClampedSwiglu | Activation::GeluSigmoid => x * sigmoid(1.702 * x),
        Activation::Sigmoid => sigmoid(x),
        Activation::Tanh => x.tanh(),
        Activation::Identity => x,
        Activation::LeakyRelu => x.max(0.01 * x),
        Activation::Mish => x * x.exp().ln_1p().tanh(),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
        Activation::Xielu => {
            let [above, slope, below, edge] = XIELU.map(f64::from);
            let curved = if x > 0.0 {
                above * x * x
            } else {
                (x.min(edge).exp_m1() - x) * below
            };
            curved + slope * x
        }
    }
}

fn activations() -> Vec<Case> {
    // Where every one of them bends, and beyond where the gate of gpt-oss is cut off.
    let wide = |seed, count| -> Vec<f32> { values(seed, count).iter().map(|x| 9.0 * x).collect() };
    let mut all = Vec::new();
    for (index, activation) in ACTIVATIONS.into_iter().enumerate() {
        let (tokens, features) = if index == 0 { (3, 275) } else { (2, 70) };
        let (x, up) = (wide(13, tokens * features), wide(14, tokens * features));
        let numbers = if activation == Activation::Xielu {
            XIELU
        } else {
            [0.0; 4]
        };
        let [above, slope, below, edge] = numbers;
        let params = ActivationParams {
            count: (tokens * features) as u32,
            activation: activation as u32,
            row: features as u32,
            above,
            slope,
            below,
            edge,
        };
        let groups = (features.div_ceil(256), tokens);
        let is_clamped = activation == Activation::ClampedSwiglu;
        let gated = |(&x, &up): (&f32, &f32)| {
            let (x, up) = (f64::from(x), f64::from(up));
            if is_clamped {
                activated(activation, x.min(7.0)) * (up.clamp(-7.0, 7.0) + 1.0)
            } else {
                activated(activation, x) * up
            }
        };
        let expected = x.iter().zip(&up).map(gated).collect();
        let case = Case::new("gated", &format!("gated {activation:?}"))
            .with(2, &up)
            .changes(1, &x, expected)
            .run(&params, groups);
        all.push(case);
        if !is_clamped {
            let expected = x.iter().map(|&x| activated(activation, f64::from(x)));
            let case = Case::new("plain", &format!("{activation:?}"))
                .changes(1, &x, expected.collect())
                .run(&params, groups);
            all.push(case);
        }
    }
    all
}

fn rows() -> Vec<Case> {
    let mut all = Vec::new();
    for features in [275_usize, 40] {
        let (tokens, weights) = ([66, 3, 20], [1.0_f32, 0.5, 0.25]);
        let places: Vec<[u32; 2]> = (tokens.iter().zip(weights))
            .map(|(&token, weight)| [token, weight.to_bits()])
            .collect();
        let params = RowsParams {
            features: features as u32,
        };
        let groups = (features.div_ceil(256), tokens.len());
        let (many, few) = (values(15, 67 * features), values(16, 3 * features));
        let mut gathered = Vec::new();
        let mut scattered = doubles(&many);
        for (row, (&token, weight)) in tokens.iter().zip(weights).enumerate() {
            for i in 0..features {
                let (one, other) = (token as usize * features + i, row * features + i);
                gathered.push(f64::from(many[one]) * f64::from(weight));
                scattered[one] += f64::from(few[other]) * f64::from(weight);
            }
        }
        let gather = Case::new("gather", "gathering of rows")
            .with(1, &places)
            .with(2, &many)
            .writes(3, gathered);
        let scatter = Case::new("scatter", "scattering of rows")
            .with(1, &places)
            .with(2, &few)
            .changes(3, &many, scattered);
        all.extend([gather, scatter].map(|case| case.run(&params, groups)));
    }
    all
}

fn elementwise() -> Vec<Case> {
    let mut all = Vec::new();
    for (tokens, features, scale, bound) in [(3, 275, 0.5_f32, 0.375_f32), (2, 40, -2.0, 0.75)] {
        let (x, y) = (values(17, tokens * features), values(18, tokens * features));
        let params = ElementwiseParams {
            count: (tokens * features) as u32,
            row: features as u32,
            scale,
            bound,
        };
        let groups = (features.div_ceil(256), tokens);
        let (scale, bound) = (f64::from(scale), f64::from(bound));
        let of = |entry_point, what, value: &dyn Fn(f64, f64) -> f64| {
            let pairs = x.iter().zip(&y);
            let expected = pairs.map(|(&x, &y)| value(f64::from(x), f64::from(y)));
            Case::new(entry_point, what)
                .changes(2, &y, expected.collect())
                .run(&params, groups)
        };
        all.extend([
            of("add_scaled", "scaled sum", &|x, y| y + scale * x).with(1, &x),
            of("scaled", "product with a number", &|x, _| scale * x).with(1, &x),
            of("clip_all", "clipping", &|_, y| y.clamp(-bound, bound)),
            of("soft_cap", "soft cap", &|_, y| bound * (y / bound).tanh()),
        ]);
    }
    all
}

fn log_sum_exps() -> Vec<Case> {
    // All rows of a head, and a part of one, in which some targets are.
    let of = |(rows, first): (usize, u32)| {
        let tokens = 6;
        let logits = values(20, tokens * rows);
        let next: Vec<u32> = (0..tokens as u32).map(|token| token * 12).collect();
        let mut expected = Vec::new();
        for (logits, &next) in logits.chunks_exact(rows).zip(&next) {
            let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let assignments = logits.iter().map(|&x| f64::from(x - largest).exp());
            let target = next.checked_sub(first).map(|row| row as usize);
            let target = target.and_then(|row| logits.get(row)).copied();
            let target = f64::from(target.unwrap_or(0.0));
            expected.extend([f64::from(largest), assignments.sum(), target]);
        }
        let params = LogSumExpParams {
            rows: rows as u32,
            first,
        };
        Case::new("log_sum_exp", "log-sum-exp")
            .with(1, &logits)
            .with(2, &next)
            .writes(3, expected)
            .run(&params, (tokens, 1))
    };
    [(300, 0), (40, 10)].map(of).into()
}
