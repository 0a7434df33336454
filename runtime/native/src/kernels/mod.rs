//! Native kernels: functions generic over lanes, which all members of a team call for a step.
//!
//! A kernel takes shares of its work from the team until none is left. Which member computes a share makes no difference:
//! each element of a result is computed by one share, in an order that depends on neither the team nor the share's size.
//! All functions here are unsafe for one reason: the step's views must be as [`needs`] asks, which whoever binds a step
//! checks, and the processor must have the instruction set.

mod attention;
mod elementwise;
mod local;
mod matmul;
mod needs;
mod norm;
mod rope;
mod rows;

#[cfg(test)]
mod tests;

use dwindle_bundle::Call;
use dwindle_bundle::native::{self, NativeKernel};

use crate::lanes::Lanes;
use crate::lanes::isa::{InstructionSet, Work};
use crate::memory::View;
use crate::pool::Member;

use local::borrow;
pub use needs::{Need, check_call, needs};

/// A kernel and what it is bound to.
#[derive(Clone, Debug)]
pub struct Step {
    /// The kernel.
    pub kernel: NativeKernel,
    /// Its bindings, as [`needs`] asks.
    pub views: Vec<View>,
}

/// One step of a call, as one member does it.
pub struct Run<'a> {
    /// The step.
    pub step: &'a Step,
    /// The call's numbers, as [`check_call`] accepts them.
    pub call: Call,
    /// The member.
    pub member: &'a Member<'a>,
    /// Memory of at least [`NativeKernel::scratch_bytes`] that all members share.
    pub scratch: View,
    /// What it is done with; available.
    pub set: InstructionSet,
}

impl Run<'_> {
    fn rows(&self, rows: Option<u32>) -> usize {
        rows.unwrap_or(self.call.rows) as usize
    }

    /// The elements of a binding that the step does not write.
    fn read<T: bytemuck::Pod>(&self, binding: usize) -> &[T] {
        // SAFETY: `needs` says which bindings are only read, and [`run`]'s caller refuses others that overlap them.
        unsafe { self.step.views[binding].slice() }
    }

    /// The first element of a binding that may be written, or overlap one that is.
    fn pointer<T: bytemuck::Pod>(&self, binding: usize) -> *mut T {
        // SAFETY: the buffer is alive during the call; what is done with the pointer is the kernels' business.
        unsafe { self.step.views[binding].cells::<T>() }.as_ptr() as *mut T
    }
}

/// A kernel that is one function, with what it works on; so each is compiled by itself for each instruction set.
struct On<'a, S>(&'a S, &'a Run<'a>);

macro_rules! work {
    ($($spec:ident => $run:expr;)*) => {$(
        impl Work for On<'_, native::$spec> {
            #[inline(always)]
            unsafe fn run<L: Lanes>(&self) {
                // SAFETY: the caller has the instruction set; [`run`]'s caller checked the views.
                unsafe { $run(self.0, self.1) }
            }
        }
    )*};
}

work! {
    Embed => rows::embed;
    Norm => norm::run::<L>;
    RopeWriteKv => rope::rope_write_kv::<L>;
    Attention => attention::run::<L>;
    OverlayRows => rows::overlay;
    WriteRows => rows::write::<L>;
    Patchify => rows::patchify;
    Elementwise => elementwise::run::<L>;
    Rope => rope::rope;
    CopyRows => rows::copy;
}

/// Does the shares of a step that this member gets.
///
/// # Safety
/// The step's views are as [`needs`] asks and do not overlap where it forbids that, [`check_call`] accepted the call, the scratch
/// memory is as long as the kernel asks, and the instruction set is available.
pub unsafe fn run(run: &Run<'_>) {
    match &run.step.kernel {
        NativeKernel::MatMul(spec) => matmul::run(spec, run),
        NativeKernel::Embed(spec) => run.set.run(&On(spec, run)),
        NativeKernel::Norm(spec) => run.set.run(&On(spec, run)),
        NativeKernel::RopeWriteKv(spec) => run.set.run(&On(spec, run)),
        NativeKernel::Attention(spec) => run.set.run(&On(spec, run)),
        NativeKernel::OverlayRows(spec) => run.set.run(&On(spec, run)),
        NativeKernel::WriteRows(spec) => run.set.run(&On(spec, run)),
        NativeKernel::Patchify(spec) => run.set.run(&On(spec, run)),
        NativeKernel::Elementwise(spec) => run.set.run(&On(spec, run)),
        NativeKernel::Rope(spec) => run.set.run(&On(spec, run)),
        NativeKernel::CopyRows(spec) => run.set.run(&On(spec, run)),
    }
}
