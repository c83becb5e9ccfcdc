"""Model factories: ``factory(input_shape, num_classes)`` returns an ``nn.Module``."""
