// Lockstep's mark: ranks side by side, in step.

export function Mark() {
  return (
    <svg className="mark" viewBox="0 0 20 20" aria-hidden="true">
      <rect x="1" y="2" width="4" height="16" rx="2" />
      <rect x="8" y="2" width="4" height="16" rx="2" />
      <rect x="15" y="2" width="4" height="16" rx="2" />
    </svg>
  );
}
