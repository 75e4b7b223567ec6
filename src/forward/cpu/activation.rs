//! The nonlinearity of feed-forward parts on the CPU.

use candle_core::{Result, Tensor};
use candle_nn::ops;

use super::{exp, in_place};
use crate::model::{Activation, Nonlinearity};

/// `act(x)`, or `act(x) * up`. Both are fresh results of a matrix product: contiguous, from their first value on.
pub(super) fn apply(of: Nonlinearity, x: Tensor, up: Option<Tensor>) -> Result<Tensor> {
    let activation = of.activation;
    match (activation, &up) {
        (Activation::Silu, Some(up)) => {
            in_place::change_by(&x, up, exp::silu_gate)?;
            return Ok(x);
        }
        (Activation::ClampedSwiglu, Some(up)) => {
            in_place::change_by(&x, up, clamped_swiglu)?;
            return Ok(x);
        }
        _ => {}
    }
    let in_place = |function: &(dyn Fn(f32) -> f32 + Sync)| {
        in_place::change(&x, |x| x.iter_mut().for_each(|x| *x = function(*x)))
    };
    let active = match activation {
        Activation::Silu => ops::silu(&x)?,
        Activation::Gelu => x.gelu_erf()?,
        Activation::GeluTanh => x.gelu()?,
        Activation::Xielu => {
            let [above, slope, below, edge] = of.numbers;
            in_place(&|x: f32| match x > 0.0 {
                true => above * x * x + slope * x,
                false => (x.min(edge).exp_m1() - x) * below + slope * x,
            })?;
            x
        }
        _ => {
            in_place(&elementwise(activation))?;
            x
        }
    };
    if let Some(up) = up {
        in_place::change_by(&active, &up, |active, up| {
            active.iter_mut().zip(up).for_each(|(x, up)| *x *= up);
        })?;
    }
    Ok(active)
}

/// The gate of gpt-oss, times `up + 1`.
fn clamped_swiglu(gate: &mut [f32], up: &[f32]) {
    const LIMIT: f32 = 7.0;
    for (gate, up) in gate.iter_mut().zip(up) {
        // What is no number stays none.
        let x = if *gate > LIMIT { LIMIT } else { *gate };
        *gate = x / (1.0 + (-1.702 * x).exp()) * (up.clamp(-LIMIT, LIMIT) + 1.0);
    }
}

/// What becomes of each value; those above have code of their own.
fn elementwise(activation: Activation) -> fn(f32) -> f32 {
    match activation {
        Activation::Silu => |x| x / (1.0 + (-x).exp()),
        Activation::Gelu | Activation::GeluTanh | Activation::Xielu | Activation::Identity => |x| x,
        Activation::Relu => |x| if x < 0.0 { 0.0 } else { x },
        Activation::ReluSquared => |x| if x < 0.0 { 0.0 } else { x * x },
        Activation::ClampedSwiglu | Activation::GeluSigmoid => |x| x / (1.0 + (-1.702 * x).exp()),
        Activation::Sigmoid => |x| 1.0 / (1.0 + (-x).exp()),
        Activation::Tanh => f32::tanh,
        Activation::LeakyRelu => |x| if x > 0.0 { x } else { 0.01 * x },
        Activation::Mish => |x| {
            let e = x.clamp(-87.0, 20.0).exp();
            let n = e * (e + 2.0);
            x * (n / (n + 2.0))
        },
        Activation::Relu6 => |x| x.clamp(0.0, 6.0),
        Activation::HardSwish => |x| x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
    }
}
