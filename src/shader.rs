//! What a device has to know of a shader: its WGSL, and each entry point with the bindings and the workgroup size it has.
//!
//! A row is data, so that the device dispatches by it and never by a name it might not know; the shader tests hold
//! every field against what naga reads out of the WGSL itself.

/// One WGSL module.
#[derive(Debug)]
#[non_exhaustive]
pub struct Shader {
    /// Its name.
    pub name: &'static str,
    /// What it does, in one sentence.
    pub summary: &'static str,
    /// The whole module, shared parts included.
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
