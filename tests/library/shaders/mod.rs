//! The shaders alone: every pass, and every kernel, is valid WGSL, becomes valid code for every back end,
//! stays within what every adapter has, and declares the uniform block that the Rust side writes. No adapter is needed.

mod arithmetic;
mod backends;
mod files;
mod limits;
mod params;
mod rows;

use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{Expression, Module};
use swiftprune_wgpu::internals::{
    COMPENSATE, FORWARD_KERNELS, FUSED, Kernel, PASSES, PRODUCT, SENTINEL, Shader,
};

/// The module, valid without a single optional capability.
fn parse(wgsl: &str) -> Result<(Module, ModuleInfo), String> {
    let module = naga::front::wgsl::parse_str(wgsl).map_err(|e| e.emit_to_string(wgsl))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::empty())
        .validate(&module)
        .map_err(|e| e.emit_to_string(wgsl))?;
    Ok((module, info))
}

/// Every kernel: those of the forward pass, the product, compensation.
fn kernels() -> impl Iterator<Item = &'static Kernel> {
    FORWARD_KERNELS.iter().chain([&PRODUCT, &COMPENSATE])
}

/// Every shader: those of the passes, alone and joined, the kernels, the one that counts submissions.
fn shaders() -> impl Iterator<Item = &'static Shader> {
    PASSES
        .iter()
        .chain(FUSED)
        .copied()
        .chain(kernels().map(|kernel| &kernel.shader))
        .chain([&SENTINEL])
}

/// The module of a registered shader.
fn module(pass: &Shader) -> (Module, ModuleInfo) {
    parse(pass.wgsl).unwrap_or_else(|error| panic!("{}: {error}", pass.name))
}

/// Calls `check` with every entry point of every pass: what to name it, its module, its index there and its name.
fn each_entry_point(mut check: impl FnMut(&str, &Module, &ModuleInfo, usize, &str)) {
    let mut seen = 0;
    for pass in shaders() {
        let (module, info) = module(pass);
        for (index, entry) in module.entry_points.iter().enumerate() {
            let what = format!("{}.wgsl, {}", pass.name, entry.name);
            check(&what, &module, &info, index, &entry.name);
            seen += 1;
        }
    }
    assert!(seen >= shaders().count(), "a shader without an entry point");
}

/// Every expression of a module, with the arena it lies in.
fn each_expression(module: &Module, mut check: impl FnMut(&naga::Arena<Expression>, &Expression)) {
    let functions = module.functions.iter().map(|(_, function)| function);
    let entry_points = module.entry_points.iter().map(|entry| &entry.function);
    for function in functions.chain(entry_points) {
        for (_, expression) in function.expressions.iter() {
            check(&function.expressions, expression);
        }
    }
}

/// The literal that an expression is, if it is one.
fn literal(arena: &naga::Arena<Expression>, handle: naga::Handle<Expression>) -> Option<i64> {
    match arena[handle] {
        Expression::Literal(naga::Literal::U32(value)) => Some(value.into()),
        Expression::Literal(naga::Literal::I32(value)) => Some(value.into()),
        _ => None,
    }
}
