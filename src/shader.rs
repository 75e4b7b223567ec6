//! What a device has to know of a shader: its WGSL, and each entry point with the bindings and the workgroup size it has.
//!
//! A row is data, so that the device dispatches by it and never by a name it might not know; the shader tests hold
//! every field against what naga reads out of the WGSL itself.
//!
//! WGSL has no way to include a file in another, so a module is files one after the other. A file under `shaders/` names in
//! its first comment those whose declarations it uses, `// Needs: shared/params, passes/score`; a row's `files` are
//! what its last one needs, each before what needs it, and the shader tests hold the two together.

/// One WGSL module.
#[derive(Debug)]
#[non_exhaustive]
pub struct Shader {
    /// Its name, which is that of its last file too.
    pub name: &'static str,
    /// What it does, in one sentence.
    pub summary: &'static str,
    /// The files it is made of, in order: `shaders/FILE.wgsl`.
    pub files: &'static [&'static str],
    /// The whole module: those files, one after the other.
    pub wgsl: &'static str,
    /// The entry points of the module, in the order they are declared, which is the order they are dispatched.
    pub entry_points: &'static [&'static EntryPoint],
}

/// One entry point of a [`Shader`].
#[derive(Debug)]
#[non_exhaustive]
pub struct EntryPoint {
    /// Its function's name, unique over all shaders.
    pub name: &'static str,
    /// The numbers of the bindings it uses, in ascending order, all in group 0. Its pipeline's layout has these and no
    /// others.
    pub bindings: &'static [u32],
    /// Invocations of a workgroup, all along x.
    pub workgroup_size: u32,
}

impl EntryPoint {
    /// Workgroups that so many invocations take.
    #[must_use]
    pub const fn groups(&self, invocations: u32) -> u32 {
        invocations.div_ceil(self.workgroup_size)
    }
}

/// A shader with a uniform block of its own, as the device and the shader tests see it.
#[derive(Debug)]
pub struct Kernel {
    /// Its shader.
    pub shader: Shader,
    /// The uniform block in Rust: where each field lies in bytes, in order.
    pub layout: &'static [(&'static str, usize)],
}

/// A [`Shader`] of files that are read when this is compiled.
macro_rules! shader {
    (
        name: $name:expr,
        summary: $summary:expr,
        files: [$($file:expr),+ $(,)?],
        entry_points: [$($entry_point:expr),+ $(,)?] $(,)?
    ) => {
        $crate::shader::Shader {
            name: $name,
            summary: $summary,
            files: &[$($file),+],
            wgsl: concat!(
                $(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $file, ".wgsl"))),+
            ),
            entry_points: &[$(&$entry_point),+],
        }
    };
}
pub(crate) use shader;

/// A uniform block, field for field as in its shader.
macro_rules! params {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $ty:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
        #[repr(C)]
        pub(crate) struct $name {
            $(pub(crate) $field: $ty),*
        }

        impl $name {
            pub(crate) const LAYOUT: &'static [(&'static str, usize)] =
                &[$((stringify!($field), std::mem::offset_of!($name, $field))),*];
        }
    };
}
pub(crate) use params;

/// A [`Kernel`] of `shaders/FOLDER/NAME.wgsl`.
macro_rules! kernel {
    ($folder:literal / $name:literal, $block:ident, $summary:literal, [$($entry_point:literal: $workgroup_size:literal, $bindings:expr);+] $(, with $($shared:literal),+)?) => {
        $crate::shader::Kernel {
            shader: $crate::shader::shader! {
                name: $name,
                summary: $summary,
                files: [$($(concat!("shared/", $shared),)+)? concat!($folder, "/", $name)],
                entry_points: [$($crate::shader::EntryPoint {
                    name: $entry_point,
                    bindings: &$bindings,
                    workgroup_size: $workgroup_size,
                }),+],
            },
            layout: $block::LAYOUT,
        }
    };
}
pub(crate) use kernel;
