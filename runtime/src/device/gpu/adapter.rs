//! Chooses an adapter and compares its limits with what plans need.

use dwindle_bundle::Target;

use crate::Error;
use crate::error::Lack;

/// The adapter to use: the first of the fastest kind, among those whose name contains `wanted` (in any case).
pub(super) fn choose(instance: &wgpu::Instance, wanted: Option<&str>) -> Result<wgpu::Adapter, Error> {
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN | wgpu::Backends::METAL));
    if adapters.is_empty() {
        return Err(Error::NoAdapter);
    }
    let names: Vec<String> = adapters.iter().map(|a| a.get_info().name).collect();
    let named = |name: &str| wanted.is_none_or(|w| name.to_lowercase().contains(&w.to_lowercase()));
    let matching = adapters.into_iter().zip(&names).filter(|(_, name)| named(name)).map(|(adapter, _)| adapter);
    // `min_by_key` takes the first of equals: the order of enumeration is the user's order of preference.
    matching
        .min_by_key(|a| rank(a.get_info().device_type))
        .ok_or_else(|| Error::NoSuchAdapter { wanted: wanted.unwrap_or_default().to_owned(), found: names.clone() })
}

/// Whether some adapter is a GPU.
pub(super) fn is_there(instance: &wgpu::Instance) -> bool {
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN | wgpu::Backends::METAL));
    adapters.iter().any(|adapter| rank(adapter.get_info().device_type) < rank(wgpu::DeviceType::Cpu))
}

/// Kinds of adapters, the fastest first. `Cpu` is a driver that runs kernels on the processor (Mesa's lavapipe).
fn rank(kind: wgpu::DeviceType) -> u32 {
    match kind {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Cpu => 3,
        wgpu::DeviceType::Other => 4,
    }
}

/// The limits and features to request for `target`: exactly what it needs where it says so, so that a plan which
/// needs more than it says fails on every device and not just on small ones.
pub(super) fn request(adapter: &wgpu::Adapter, target: &Target) -> Result<(wgpu::Limits, wgpu::Features), Error> {
    let offered = adapter.limits();
    let mut limits = wgpu::Limits::default().or_worse_values_from(&offered);
    let mut features = wgpu::Features::empty();
    let mut lacks = Vec::new();
    for (name, &needs) in &target.needs {
        match require(&mut limits, &offered, name, needs) {
            None => lacks.push(Lack::UnknownLimit(name.clone())),
            Some(Err(offers)) => lacks.push(Lack::Limit { name: name.clone(), needs, offers }),
            Some(Ok(())) => {}
        }
    }
    for name in &target.features {
        match name.parse::<wgpu::Features>() {
            Err(_) => lacks.push(Lack::UnknownFeature(name.clone())),
            Ok(feature) if !adapter.features().contains(feature) => lacks.push(Lack::Feature(name.clone())),
            Ok(feature) => features |= feature,
        }
    }
    match lacks.is_empty() {
        true => Ok((limits, features)),
        false => Err(Error::Limits { adapter: adapter.get_info().name, lacks }),
    }
}

/// Sets limit `name` to `needs`; `Some(Err(offered))` where that is too much, `None` where there is no such limit.
fn require(limits: &mut wgpu::Limits, offered: &wgpu::Limits, name: &str, needs: u64) -> Option<Result<(), u64>> {
    macro_rules! greatest {
        ($($field:ident),*) => {
            match name {
                $(stringify!($field) => {
                    let offers = offered.$field;
                    return Some(match needs.try_into() {
                        Ok(needs) if needs <= offers => {
                            limits.$field = needs;
                            Ok(())
                        }
                        // The `as` widens where the limit has 32 bits.
                        _ => Err(offers as u64),
                    });
                })*
                _ => {}
            }
        };
    }
    greatest!(
        max_bindings_per_bind_group,
        max_buffer_size,
        max_compute_invocations_per_workgroup,
        max_compute_workgroup_size_x,
        max_compute_workgroup_size_y,
        max_compute_workgroup_size_z,
        max_compute_workgroup_storage_size,
        max_compute_workgroups_per_dimension,
        max_storage_buffer_binding_size,
        max_storage_buffers_per_shader_stage,
        max_uniform_buffer_binding_size,
        max_uniform_buffers_per_shader_stage
    );
    // Alignments are the other way round: offsets are multiples of `needs`, which the device's alignment must divide.
    if name == "min_storage_buffer_offset_alignment" {
        let offers = offered.min_storage_buffer_offset_alignment;
        return Some(match u32::try_from(needs) {
            Ok(needs) if needs.is_power_of_two() && needs >= offers => {
                limits.min_storage_buffer_offset_alignment = needs;
                Ok(())
            }
            _ => Err(u64::from(offers)),
        });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, needs: u64, expected: Option<Result<(), u64>>) {
        let offered = wgpu::Limits::default();
        let mut limits = offered.clone();
        assert_eq!(require(&mut limits, &offered, name, needs), expected);
    }

    #[test]
    fn limits_are_compared_by_name() {
        check("max_compute_workgroup_size_x", 256, Some(Ok(())));
        check("max_compute_workgroup_size_x", 257, Some(Err(256)));
        check("max_compute_workgroup_size_x", u64::MAX, Some(Err(256)));
        check("max_buffer_size", 256 << 20, Some(Ok(())));
        check("max_buffer_size", 1 << 40, Some(Err(256 << 20)));
        check("min_storage_buffer_offset_alignment", 256, Some(Ok(())));
        check("min_storage_buffer_offset_alignment", 16, Some(Err(256)));
        check("min_storage_buffer_offset_alignment", 300, Some(Err(256)));
        check("max_magic", 1, None);
    }

    #[test]
    fn real_devices_come_first() {
        use wgpu::DeviceType::*;
        let mut kinds = [Cpu, Other, VirtualGpu, DiscreteGpu, IntegratedGpu];
        kinds.sort_by_key(|&kind| rank(kind));
        assert_eq!(kinds, [DiscreteGpu, IntegratedGpu, VirtualGpu, Cpu, Other]);
    }
}
