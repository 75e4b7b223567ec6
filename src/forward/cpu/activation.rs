//! The nonlinearity of feed-forward parts on the CPU.

use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, Layout, Result, Tensor};
use candle_nn::ops;
use rayon::prelude::*;

use super::exp;
use crate::model::{Activation, Nonlinearity};

/// `act(x)`, or `act(x) * up`. Both are fresh results of a matrix product: contiguous, from their first value on.
pub(super) fn apply(of: Nonlinearity, x: Tensor, up: Option<Tensor>) -> Result<Tensor> {
    let activation = of.activation;
    if let (Activation::Silu, Some(up)) = (activation, &up) {
        x.inplace_op2(up, &SiluGate)?;
        return Ok(x);
    }
    if let (Activation::ClampedSwiglu, Some(up)) = (activation, &up) {
        x.inplace_op2(up, &ClampedSwiglu)?;
        return Ok(x);
    }
    let active = match activation {
        Activation::Silu => ops::silu(&x),
        Activation::Gelu => x.gelu_erf(),
        Activation::GeluTanh => x.gelu(),
        Activation::Xielu => {
            let [above, slope, below, edge] = of.numbers;
            x.inplace_op1(&Elementwise(|x: f32| match x > 0.0 {
                true => above * x * x + slope * x,
                false => (x.min(edge).exp_m1() - x) * below + slope * x,
            }))?;
            Ok(x)
        }
        _ => {
            x.inplace_op1(&Elementwise(elementwise(activation)))?;
            Ok(x)
        }
    };
    match up {
        Some(up) => active? * up,
        None => active,
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

/// A function of each value, in its place.
struct Elementwise<F>(F);

impl<F: Fn(f32) -> f32 + Sync> InplaceOp1 for Elementwise<F> {
    fn name(&self) -> &'static str {
        "elementwise"
    }

    fn cpu_fwd(&self, values: &mut CpuStorage, _: &Layout) -> Result<()> {
        let CpuStorage::F32(values) = values else {
            candle_core::bail!("activations are f32");
        };
        let chunks = values.par_chunks_mut(1 << 14);
        chunks.for_each(|values| values.iter_mut().for_each(|x| *x = (self.0)(*x)));
        Ok(())
    }
}

/// The gate of gpt-oss, in its place.
struct ClampedSwiglu;

impl InplaceOp2 for ClampedSwiglu {
    fn name(&self) -> &'static str {
        "clamped-swiglu"
    }

    fn cpu_fwd(
        &self,
        gate: &mut CpuStorage,
        _: &Layout,
        up: &CpuStorage,
        _: &Layout,
    ) -> Result<()> {
        const LIMIT: f32 = 7.0;
        let (CpuStorage::F32(gate), CpuStorage::F32(up)) = (gate, up) else {
            candle_core::bail!("activations are f32");
        };
        for (gate, up) in gate.iter_mut().zip(up) {
            // What is no number stays none.
            let x = if *gate > LIMIT { LIMIT } else { *gate };
            *gate = x / (1.0 + (-1.702 * x).exp()) * (up.clamp(-LIMIT, LIMIT) + 1.0);
        }
        Ok(())
    }
}

/// `silu(gate) * up`, in the place of the gate.
struct SiluGate;

impl InplaceOp2 for SiluGate {
    fn name(&self) -> &'static str {
        "silu-gate"
    }

    fn cpu_fwd(
        &self,
        gate: &mut CpuStorage,
        _: &Layout,
        up: &CpuStorage,
        _: &Layout,
    ) -> Result<()> {
        let (CpuStorage::F32(gate), CpuStorage::F32(up)) = (gate, up) else {
            candle_core::bail!("activations are f32");
        };
        let gates = gate.par_chunks_mut(1 << 14);
        gates
            .zip(up.par_chunks(1 << 14))
            .for_each(|(gate, up)| exp::silu_gate(gate, up));
        Ok(())
    }
}
