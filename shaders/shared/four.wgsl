// Four of `inputs`, which the including module has, at a time: the state of a recurrence is kept in vectors.

// The first `left` of four values, and 0 for the others.
fn first_of(values: vec4<f32>, left: u32) -> vec4<f32> {
    return select(vec4<f32>(), values, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(left));
}

// Four inputs from `first` on, of which `left` are there.
fn four_inputs(first: u32, left: u32) -> vec4<f32> {
    return first_of(vec4<f32>(inputs[first], inputs[first + 1u], inputs[first + 2u], inputs[first + 3u]), left);
}
