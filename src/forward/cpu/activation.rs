//! The nonlinearity of feed-forward parts on the CPU.

use super::activations::Activations;
use super::{exp, in_place};
use crate::forward::error::Error;
use crate::model::{Activation, Nonlinearity};

/// `act(x)`, or `act(x) * up`.
pub(super) fn apply(
    of: Nonlinearity,
    mut x: Activations,
    up: Option<Activations>,
) -> Result<Activations, Error> {
    let gate = match of.activation {
        Activation::Silu => Some(exp::silu_gate as fn(&mut [f32], &[f32])),
        Activation::ClampedSwiglu => Some(clamped_swiglu as fn(&mut [f32], &[f32])),
        _ => None,
    };
    if let (Some(gate), Some(up)) = (gate, &up) {
        in_place::change_by(&mut x, up, gate)?;
        return Ok(x);
    }
    match of.activation {
        Activation::Silu => in_place::change(&mut x, exp::silu),
        Activation::GeluTanh => in_place::change(&mut x, exp::gelu_tanh),
        Activation::Xielu => {
            let [above, slope, below, edge] = of.numbers;
            each(&mut x, |x: f32| {
                if x > 0.0 {
                    above * x * x + slope * x
                } else {
                    (x.min(edge).exp_m1() - x) * below + slope * x
                }
            });
        }
        activation => each(&mut x, elementwise(activation)),
    }
    if let Some(up) = up {
        in_place::change_by(&mut x, &up, |x, up| {
            x.iter_mut().zip(up).for_each(|(x, up)| *x *= up);
        })?;
    }
    Ok(x)
}

fn each(x: &mut Activations, function: impl Fn(f32) -> f32 + Sync) {
    in_place::change(x, |x| x.iter_mut().for_each(|x| *x = function(*x)));
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
        Activation::Silu | Activation::GeluTanh | Activation::Xielu | Activation::Identity => |x| x,
        Activation::Gelu => |x| 0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2)),
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
