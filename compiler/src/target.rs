//! Targets: the limits and features that a plan may assume of the device it will run on.

use std::fmt;
use std::str::FromStr;

/// What kernels are emitted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetName {
    /// Any Vulkan 1.1 device; WGSL and SPIR-V.
    Vulkan,
    /// Apple's GPUs; WGSL and MSL.
    Metal,
    /// Any processor; kernels of the runtime itself.
    Cpu,
}

impl TargetName {
    /// All targets, for help texts and errors.
    pub const ALL: [TargetName; 3] = [TargetName::Vulkan, TargetName::Metal, TargetName::Cpu];

    /// The name in the command line and in bundles.
    pub const fn name(self) -> &'static str {
        match self {
            TargetName::Vulkan => "vulkan",
            TargetName::Metal => "metal",
            TargetName::Cpu => "cpu",
        }
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no target.
#[derive(Debug, thiserror::Error)]
#[error("unknown target `{0}`: expected vulkan, metal or cpu")]
pub struct UnknownTarget(String);

impl FromStr for TargetName {
    type Err = UnknownTarget;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|t| t.name() == text).ok_or_else(|| UnknownTarget(text.to_owned()))
    }
}

/// Limits and features of a target. The defaults are WebGPU's guaranteed limits, which every wgpu device offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Which one.
    pub name: TargetName,
    /// Bytes that one storage binding may span.
    pub max_storage_buffer_binding_size: u64,
    /// Bytes of one buffer.
    pub max_buffer_size: u64,
    /// Binding offsets are multiples of this many bytes.
    pub min_storage_buffer_offset_alignment: u64,
    /// Storage bindings of one kernel.
    pub max_storage_buffers_per_shader_stage: u32,
    /// Workgroup memory in bytes.
    pub max_compute_workgroup_storage_size: u32,
    /// Invocations of a workgroup.
    pub max_compute_invocations_per_workgroup: u32,
    /// Invocations of a workgroup in x.
    pub max_compute_workgroup_size_x: u32,
    /// Workgroups in each direction.
    pub max_compute_workgroups_per_dimension: u32,
}

impl Target {
    /// The target of this name with WebGPU's default limits; a processor has none but its memory.
    pub const fn new(name: TargetName) -> Self {
        let cpu = matches!(name, TargetName::Cpu);
        Target {
            name,
            max_storage_buffer_binding_size: if cpu { 1 << 40 } else { 128 << 20 },
            max_buffer_size: if cpu { 1 << 40 } else { 256 << 20 },
            min_storage_buffer_offset_alignment: 256,
            max_storage_buffers_per_shader_stage: 8,
            max_compute_workgroup_storage_size: 16384,
            max_compute_invocations_per_workgroup: 256,
            max_compute_workgroup_size_x: 256,
            max_compute_workgroups_per_dimension: 65535,
        }
    }
}
