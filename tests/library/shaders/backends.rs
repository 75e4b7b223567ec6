//! Every entry point becomes SPIR-V, MSL, HLSL and GLSL.

use std::path::PathBuf;

use naga::back::{glsl, hlsl, msl, spv};
use naga::proc::BoundsCheckPolicies;
use naga::valid::ModuleInfo;
use naga::{Block, Expression, Module, ShaderStage, Statement};
use swiftprune_wgpu::internals::{FUSED, PASSES};

use super::{each_entry_point, each_expression, module, shaders};

#[test]
fn every_entry_point_becomes_spirv() {
    each_entry_point(|what, module, info, _, entry| {
        let pipeline = spv::PipelineOptions {
            shader_stage: ShaderStage::Compute,
            entry_point: entry.to_owned(),
        };
        let words = spv::write_vec(module, info, &spv::Options::default(), Some(&pipeline));
        let words = words.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(words.first(), Some(&0x0723_0203), "{what}");
    });
}

/// What must hold of the text for Metal and DX12, which cannot be run on every machine that tests: no type that a back
/// end lacks, and no integer division by a number that is only known later without the guard against 0.
fn check_text(what: &str, text: &str, module: &Module) {
    for ty in ["half", "half2", "bfloat", "double", "float16_t", "int64_t"] {
        let is_word = |word: &str| word == ty;
        let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
        assert!(!words.any(is_word), "{what}: {ty}");
    }
    let mut divides = false;
    each_expression(module, |arena, expression| {
        use naga::BinaryOperator::{Divide, Modulo};
        if let Expression::Binary {
            op: Divide | Modulo,
            right,
            ..
        } = *expression
        {
            let is_number = |handle| matches!(arena[handle], Expression::Literal(_));
            divides |=
                !is_number(right) && !text.contains("naga_div(") && !text.contains("naga_mod(");
        }
    });
    let mut integer = PASSES.iter().chain(FUSED);
    let is_integer = integer.any(|pass| what.starts_with(pass.name));
    assert!(!(divides && is_integer), "{what}: an unguarded division");
}

#[test]
fn every_entry_point_becomes_metal() {
    each_entry_point(|what, module, info, index, entry| {
        for lang_version in [(2, 0), (2, 4)] {
            let options = msl::Options {
                lang_version,
                ..msl::Options::default()
            };
            let pipeline = msl::PipelineOptions {
                entry_point: Some((ShaderStage::Compute, entry.to_owned())),
                ..msl::PipelineOptions::default()
            };
            let (text, reflection) = msl::write_string(module, info, &options, &pipeline)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            // With the entry point named, the reflection holds that one alone.
            let name = reflection.entry_point_names.first();
            let name = name.unwrap_or_else(|| panic!("{what}, {index}: none was written"));
            let name = name.as_ref().unwrap_or_else(|e| panic!("{what}: {e}"));
            assert!(text.contains(&format!("kernel void {name}(")), "{what}");
            check_text(what, &text, module);
            let buffers = text.matches("[[buffer(").count();
            assert!(buffers <= 31, "{what}: {buffers} buffers, and Metal has 31");
        }
    });
}

/// The statements of a block that return a value.
fn returns(block: &Block) -> usize {
    let of = |statement: &Statement| match statement {
        Statement::Return { value: Some(_) } => 1,
        Statement::Block(block) => returns(block),
        Statement::If { accept, reject, .. } => returns(accept) + returns(reject),
        Statement::Switch { cases, .. } => cases.iter().map(|case| returns(&case.body)).sum(),
        Statement::Loop {
            body, continuing, ..
        } => returns(body) + returns(continuing),
        _ => 0,
    };
    block.iter().map(of).sum()
}

/// FXC does not follow an early return, and takes what comes after it for uninitialized (`docs/windows.md`).
#[test]
fn a_function_returns_its_value_in_one_place() {
    let several = |module: &Module| -> Vec<String> {
        let functions = module.functions.iter().map(|(_, function)| function);
        let several = functions.filter(|function| returns(&function.body) > 1);
        several
            .filter_map(|function| function.name.clone())
            .collect()
    };
    for pass in shaders() {
        assert_eq!(several(&module(pass).0), [""; 0], "{}", pass.name);
    }
    let early = "fn f(x: u32) -> u32 { if x == 0u { return 1u; } return x; }";
    let early = naga::front::wgsl::parse_str(early).expect("WGSL");
    assert_eq!(several(&early), ["f"]);
}

#[test]
fn every_entry_point_becomes_hlsl() {
    each_entry_point(|what, module, info, _, entry| {
        for shader_model in [
            hlsl::ShaderModel::V5_0,
            hlsl::ShaderModel::V5_1,
            hlsl::ShaderModel::V6_0,
        ] {
            let options = hlsl::Options {
                shader_model,
                ..hlsl::Options::default()
            };
            let text = hlsl_text(what, (module, info, entry), &options);
            assert!(text.contains(&format!("void {entry}(")), "{what}:\n{text}");
            check_text(what, &text, module);
        }
    });
}

/// Writes what DX12 gets into `SWIFTPRUNE_HLSL_DIR`, where Microsoft's compiler can be tried on it (docs/windows.md).
#[test]
#[ignore = "writes files: set SWIFTPRUNE_HLSL_DIR"]
fn hlsl_is_written_where_it_is_asked_for() {
    let dir = std::env::var_os("SWIFTPRUNE_HLSL_DIR").map(PathBuf::from);
    let dir = dir.expect("SWIFTPRUNE_HLSL_DIR says where to");
    std::fs::create_dir_all(&dir).unwrap();
    each_entry_point(|what, module, info, _, entry| {
        let options = hlsl::Options {
            shader_model: hlsl::ShaderModel::V5_1,
            // As the program compiles its kernels.
            zero_initialize_workgroup_memory: false,
            ..hlsl::Options::default()
        };
        let text = hlsl_text(what, (module, info, entry), &options);
        let shader = what.split(".wgsl").next().unwrap_or(what).replace('/', "-");
        std::fs::write(dir.join(format!("{shader}.{entry}.hlsl")), text).unwrap();
    });
}

/// An entry point in HLSL.
fn hlsl_text(
    what: &str,
    (module, info, entry): (&Module, &ModuleInfo, &str),
    options: &hlsl::Options,
) -> String {
    let pipeline = hlsl::PipelineOptions {
        entry_point: Some((ShaderStage::Compute, entry.to_owned())),
    };
    let mut text = String::new();
    hlsl::Writer::new(&mut text, options, &pipeline)
        .write(module, info, None)
        .unwrap_or_else(|error| panic!("{what}, {:?}: {error}", options.shader_model));
    text
}

#[test]
fn every_entry_point_becomes_glsl() {
    each_entry_point(|what, module, info, _, entry| {
        for version in [glsl::Version::new_gles(310), glsl::Version::Desktop(430)] {
            let options = glsl::Options {
                version,
                ..glsl::Options::default()
            };
            let pipeline = glsl::PipelineOptions {
                shader_stage: ShaderStage::Compute,
                entry_point: entry.to_owned(),
                multiview: None,
            };
            let mut text = String::new();
            let policies = BoundsCheckPolicies::default();
            glsl::Writer::new(&mut text, module, info, &options, &pipeline, policies)
                .and_then(|mut writer| writer.write())
                .unwrap_or_else(|error| panic!("{what}, {version}: {error}"));
            assert!(text.contains("void main()"), "{what}, {version}");
        }
    });
}
