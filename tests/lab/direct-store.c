// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Carries out MOVDIR64B for a processor that does not have it, as that of an emulator does not: eight stores of eight bytes in a row, which nothing
 * comes between. The kernel is told that the processor has it.
 *
 * With this module an unchanged driver of Intel's DSA, which refuses to load without the instruction, runs in such a guest.
 */
#include <linux/io.h>
#include <linux/kdebug.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/ptrace.h>
#include <linux/spinlock.h>
#include <asm/cpufeature.h>
#include <asm/trapnr.h>

/* MOVDIR64B rax, [rdx], which is how the kernel writes it. */
static const u8 instruction[] = { 0x66, 0x0f, 0x38, 0xf8, 0x02 };

static DEFINE_RAW_SPINLOCK(bus);
static unsigned long stores;
module_param(stores, ulong, 0444);
MODULE_PARM_DESC(stores, "how often it was carried out");

static int invalid_opcode(struct notifier_block *self, unsigned long event, void *data)
{
	struct die_args *trap = data;
	struct pt_regs *regs = trap->regs;
	void __iomem *target;
	const u64 *source;
	int word;

	if (event != DIE_TRAP || trap->trapnr != X86_TRAP_UD || user_mode(regs))
		return NOTIFY_DONE;
	if (memcmp((void *)regs->ip, instruction, sizeof(instruction)))
		return NOTIFY_DONE;
	target = (void __iomem *)regs->ax;
	source = (const u64 *)regs->dx;
	raw_spin_lock(&bus);
	for (word = 0; word < 8; word++)
		writeq(source[word], target + 8 * word);
	stores++;
	raw_spin_unlock(&bus);
	regs->ip += sizeof(instruction);
	return NOTIFY_STOP;
}

static struct notifier_block traps = { .notifier_call = invalid_opcode };

static int __init begin(void)
{
	if (boot_cpu_has(X86_FEATURE_MOVDIR64B))
		return -EEXIST;
	set_cpu_cap(&boot_cpu_data, X86_FEATURE_MOVDIR64B);
	return register_die_notifier(&traps);
}

static void __exit end(void)
{
	unregister_die_notifier(&traps);
	clear_bit(X86_FEATURE_MOVDIR64B, (unsigned long *)boot_cpu_data.x86_capability);
}

module_init(begin);
module_exit(end);
MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("MOVDIR64B for a processor that does not have it");
