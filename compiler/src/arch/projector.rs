//! The projector of LLaVA's models: two linear layers with an activation between them, from a tower's features to a
//! decoder's embeddings (Liu et al. 2023, arXiv 2310.03744).

use dwindle_schemes::Role;

use super::TensorSpec;
use super::keys::{ACTIVATIONS, Keys};
use super::weights::Weights;
use crate::graph::{Activation, ValueId};

/// A projector.
#[derive(Clone, Debug, PartialEq)]
pub struct Projector {
    /// Between the layers.
    pub activation: Activation,
    /// The layers have biases.
    pub bias: bool,
    /// Length of a feature.
    pub features: usize,
    /// Length of an embedding.
    pub hidden: usize,
}

impl Projector {
    /// Reads the keys of a projector from `features` to `hidden` columns.
    pub fn read(keys: &mut Keys<'_>, features: usize, hidden: usize) -> Projector {
        let activation = keys.choice("projector_hidden_act", Activation::Gelu, ACTIVATIONS);
        Projector { activation, bias: keys.flag("multimodal_projector_bias", true), features, hidden }
    }

    /// Every tensor it uses.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut list = Vec::new();
        for (layer, columns) in [("linear_1", self.features), ("linear_2", self.hidden)] {
            let name = format!("multi_modal_projector.{layer}");
            let spec = |part: &str, shape: &[usize], role| TensorSpec {
                name: format!("{name}.{part}"),
                shape: shape.to_vec(),
                role,
            };
            list.push(spec("weight", &[self.hidden, columns], Role::Projector));
            if self.bias {
                list.push(spec("bias", &[self.hidden], Role::Vector));
            }
        }
        list
    }

    /// Features `[n, features]` to embeddings `[n, hidden]`.
    pub fn project(&self, weights: &mut Weights<'_>, x: ValueId) -> ValueId {
        let x = weights.linear(x, "multi_modal_projector.linear_1", self.hidden, self.features, self.bias);
        let x = weights.graph.activate(x, self.activation);
        weights.linear(x, "multi_modal_projector.linear_2", self.hidden, self.hidden, self.bias)
    }
}
