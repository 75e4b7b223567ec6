//! The uniform blocks are the same in WGSL and in Rust.

use naga::proc::Layouter;
use naga::{AddressSpace, Module, TypeInner};
use swiftprune_wgpu::internals::{FUSED, Kernel, PASSES, params_layout};

use super::{kernels, parse};

/// Name and offset of every field of `struct Params`, and its size, as the WGSL has them.
fn params_in_wgsl(module: &Module) -> (Vec<(String, usize)>, usize) {
    let (_, variable) = module
        .global_variables
        .iter()
        .find(|(_, variable)| variable.space == AddressSpace::Uniform)
        .expect("every shader reads a uniform block");
    let TypeInner::Struct { members, .. } = &module.types[variable.ty].inner else {
        panic!("the uniform block is no struct");
    };
    let mut layouter = Layouter::default();
    layouter.update(module.to_ctx()).expect("a valid module");
    let members = members
        .iter()
        .map(|member| {
            let scalar = module.types[member.ty].inner.scalar();
            assert!(scalar.is_some_and(|s| s.width == 4), "{:?}", member.name);
            let name = member.name.clone().expect("WGSL names every member");
            (name, member.offset as usize)
        })
        .collect();
    (members, layouter[variable.ty].size as usize)
}

/// Fails with the first field that is not where the Rust side has it.
fn compare_params(
    wgsl: &str,
    (expected, size): (&[(&'static str, usize)], usize),
) -> Result<(), String> {
    let (module, _) = parse(wgsl)?;
    let (found, found_size) = params_in_wgsl(&module);
    for (i, (name, offset)) in expected.iter().enumerate() {
        match found.get(i) {
            Some((found, at)) if found == name && at == offset => {}
            other => return Err(format!("{name} at {offset} in Rust, {other:?} in WGSL")),
        }
    }
    if (found.len(), found_size) != (expected.len(), size) {
        let (fields, expected) = (found.len(), expected.len());
        return Err(format!(
            "{expected} fields and {size} bytes in Rust, {fields} and {found_size} in WGSL"
        ));
    }
    Ok(())
}

#[test]
fn params_are_the_same_in_wgsl_and_in_rust() {
    for pass in PASSES {
        compare_params(pass.wgsl, params_layout())
            .unwrap_or_else(|error| panic!("{}: {error}", pass.name));
    }
    for joined in FUSED {
        compare_params(joined.wgsl, params_layout()).expect(joined.name);
    }
    for Kernel {
        shader: pass,
        layout,
    } in kernels()
    {
        let size = layout.last().map_or(0, |(_, offset)| offset + 4);
        compare_params(pass.wgsl, (layout, size))
            .unwrap_or_else(|error| panic!("{}: {error}", pass.name));
    }
}

#[test]
fn params_that_differ_in_order_name_length_or_width_are_noticed() {
    let wgsl = PASSES[0].wgsl;
    for (field, changed) in [
        (
            "rows: u32,\n    in_features: u32,",
            "in_features: u32,\n    rows: u32,",
        ),
        ("below: u32,", "lower: u32,"),
        ("mask_words: u32,", ""),
        ("n: u32,\n    m: u32,", "n: vec2<u32>,\n    m: u32,"),
        ("cubed: u32,", ""),
        ("cubed: u32,", "cubed: u32,\n    more: vec4<u32>,"),
    ] {
        let other = wgsl.replacen(field, changed, 1);
        assert_ne!(other, wgsl, "{field} is not in the shader");
        let error = compare_params(&other, params_layout()).expect_err(changed);
        // The comparator's words, not those of a shader that does not parse.
        assert!(error.contains("in Rust"), "{field} -> {changed}: {error}");
    }
}
