"""When a reading is worth a look, and when it is worth another card.

They are this project's choice, set between what healthy cards were published to differ by and
what sick ones did: a study of 3,500 GPUs saw the compute of one model of card spread by up to 34.5
% (259 H100 PCIe; College of William & Mary, Jefferson Lab and Silicon Data, 6,800 SiliconMark runs
at 11 providers), so a tenth under the published range is worth a look and a quarter is worth
another card.
"""

RATE_WARN, RATE_FAIL = 0.9, 0.75
"""Of the low end of the published range."""
DATASHEET_GEMM, DATASHEET_COPY = 0.776, 0.767
"""The lowest shares of the datasheet among the published rates in configs/gpus (B200's best search,
H100 SXM's untuned copy kernel in nccl issue 1264), for cards without rates of their own; they only
warn."""
CLOCK_WARN, CLOCK_FAIL = 0.6, 0.4
"""Of the maximum: at its power limit a healthy card clocks down too."""
POWER_WARN, POWER_FAIL = 0.95, 0.75
"""The limit over the card's default."""
LINK_WARN, LINK_FAIL = 0.7, 0.35
"""Of the link's rate.  An H100 SXM reached 0.87 to the device and 0.74 from it with pinned memory
(aigatech/vpbenchmarking); half the lanes give under 0.5."""
REPEAT_WARN = 0.1
"""The share by which two short GEMM runs differ."""
LOAD_WARN = 0.5
"""Of the cores, busy before anything is measured."""
FOREIGN_MEMORY_WARN = 0.02
"""Of the card's memory, held by others."""
IDLE_UTILISATION_WARN = 0.05
"""Of the card's time, before anything is measured."""
DISK_WARN_BYTES, HOST_MEMORY_WARN_BYTES = 2e9, 4e9
CLOCK_TICK_WARN_S = 1e-5
"""A thousandth of the ten milliseconds that small stages take."""
LINK_BYTES_PER_LANE = {1: 0.25e9, 2: 0.5e9, 3: 0.985e9, 4: 1.969e9, 5: 3.938e9, 6: 7.563e9}
"""By PCIe generation, each way (PCI-SIG)."""
