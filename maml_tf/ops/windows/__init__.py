"""What looks around each pixel, channel by channel: depthwise convolution and 3x3 pooling."""
