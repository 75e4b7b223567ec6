//! The nonlinearity of feed-forward parts on the CPU.

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor};
use candle_nn::ops;
use rayon::prelude::*;

use super::exp;
use crate::model::Activation;

/// `act(x)`, or `act(x) * up`. Both are fresh results of a matrix product: contiguous, from their first value on.
pub(super) fn apply(activation: Activation, x: Tensor, up: Option<Tensor>) -> Result<Tensor> {
    if let (Activation::Silu, Some(up)) = (activation, &up) {
        x.inplace_op2(up, &SiluGate)?;
        return Ok(x);
    }
    let active = match activation {
        Activation::Silu => ops::silu(&x),
        Activation::Gelu => x.gelu_erf(),
        Activation::GeluTanh => x.gelu(),
        Activation::Relu => x.relu(),
    };
    match up {
        Some(up) => active? * up,
        None => active,
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
