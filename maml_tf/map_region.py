"""Runs `python -m maml_tf.map_region`, see commands/maps/map_region.py."""

from maml_tf.commands.maps.map_region import main

if __name__ == '__main__':
    main()
